//! Alerts and dashboard under a real Prometheus: each alert about pools and the operator fires for its real fault, and
//! each panel about them has data.

use separation_testbed::{Kafka, KafkaOptions, MetricsOf, Monitoring, Prometheus, eventually};
use serde_json::json;

use crate::members::{Member, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::secrets::write_secret;
use crate::subject::{OperatorProcess, PoolUnderTest};

/// All groups of rules.
const GROUPS: [&str; 3] = ["separation-pools", "separation-workers", "separation-operator"];

/// Prometheus that scrapes the operator, with the namespace of its pod.
async fn prometheus(monitoring: &Monitoring, operator: &OperatorProcess) -> Prometheus {
    let address = operator.address().expect("an address");
    let labels = [("namespace", "separation-system")].into();
    let rules = monitoring.rules_without_delay(&GROUPS);
    Prometheus::start(&[(address, labels)], &rules)
        .await
        .expect("Prometheus")
}

/// A pool whose Kafka refuses its user.
async fn refused_pool<'a>(rig: &'a Rig, kafka: &'a Kafka) -> PoolUnderTest<'a> {
    write_secret(rig, kafka.security().username(), "not-the-password").await;
    let pool = PoolUnderTest::on(rig, kafka, "refused", 1).await;
    pool.apply(&json!({"kafka": {
        "bootstrapServers": kafka.bootstrap_sasl_plaintext(),
        "sasl": {"usernameSecretRef": {"name": "kafka-user"}, "passwordSecretRef": {"name": "kafka-user"}},
    }}))
    .await;
    pool
}

#[tokio::test]
async fn alerts_about_pools_fire_for_their_faults_and_every_panel_about_them_has_data() {
    let secure = KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(secure).await.expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &kafka, "vocals", 2).await;
    pool.apply(&json!({"processor": {
        "consumer": {"sessionTimeoutMs": 6_000, "heartbeatIntervalMs": 500},
        "scaling": {
            "target": {"type": "DrainDeadline", "drainDeadlineSeconds": 1},
            "estimates": {"taskSeconds": 1},
        },
    }}))
    .await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    let monitoring = Monitoring::read().expect("the chart's files");
    let prometheus = prometheus(&monitoring, &operator).await;
    eventually("known lag without an alert", SOON, async || {
        let known = prometheus.query("separation_pool_lag_known == 1").await?;
        let alerts = prometheus.alerts().await?;
        anyhow::ensure!(known.len() == 2 && alerts.is_empty(), "{known:?}, {alerts:?}");
        anyhow::Ok(true)
    })
    .await;

    // Tasks that no worker completes, and one worker that does not join.
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    let pods = ready_pods(&pool, 2).await;
    let member = Member::of(&pool, &pods[0], Tasks::Hold);
    let of_pool = [
        ("namespace", &*rig.namespace),
        ("pool", "vocals"),
        ("role", "processor"),
    ];
    for name in [
        "SeparationLagNotDecreasing",
        "SeparationOldestTaskOverTarget",
        "SeparationWorkersNotMembers",
    ] {
        let alert = prometheus.until_alert(name, &of_pool, SOON).await;
        let named = format!("Pool {}/vocals, processor: ", rig.namespace);
        assert!(alert.annotations["summary"].starts_with(&named), "{alert:?}");
    }

    let _refused = refused_pool(&rig, &kafka).await;
    let cluster = kafka.bootstrap_sasl_plaintext();
    let alert = prometheus
        .until_alert("SeparationKafkaRefused", &[("cluster", &*cluster)], SOON)
        .await;
    let expected = format!("Kafka at {cluster} refuses the operator");
    assert_eq!(alert.annotations["summary"], expected);
    let queries = monitoring.queries(MetricsOf::Operator);
    eventually("data in every panel", SOON, async || {
        let without = prometheus.without_data(&queries).await?;
        anyhow::ensure!(without.is_empty(), "no data: {without:?}");
        anyhow::Ok(true)
    })
    .await;

    drop(member);
    kafka.kill_broker(0).await.expect("it runs");
    prometheus
        .until_alert("SeparationLagUnknown", &of_pool, SOON)
        .await;
    operator.process.kill_9().await.expect("it runs");
    prometheus.until_alert("SeparationNoLeader", &[], SOON).await;
}
