//! Alerts and dashboard under a real Prometheus: each alert about workers fires for its real fault, and each panel about
//! workers and APIs has data.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use separation_contract::environment as env;
use separation_testbed::{
    Kafka, KafkaOptions, MetricsOf, Monitoring, Prometheus, Worker, WorkerOptions, eventually,
};

use crate::authentication::with_credentials;
use crate::rig::{Rig, STEP_TIMEOUT, WORKER, admin, ask};
use crate::store_refusals::refusing;

/// Prometheus that scrapes workers, with the labels of their pods by the chart's PodMonitor.
async fn prometheus(monitoring: &Monitoring, workers: &[(&str, &Worker)]) -> Prometheus {
    let mut targets = Vec::new();
    for &(role, worker) in workers {
        let labels = BTreeMap::from([("namespace", "media"), ("pool", "vocals"), ("role", role)]);
        targets.push((admin(worker).await, labels));
    }
    let rules = monitoring.rules_without_delay(&["separation-workers"]);
    Prometheus::start(&targets, &rules).await.unwrap()
}

fn api(rig: &Rig) -> WorkerOptions {
    let api = rig.site.worker(WORKER, "api");
    api.env(env::API_PORT, "0").env(env::API_HOST, "127.0.0.1")
}

#[tokio::test]
async fn alerts_about_workers_fire_for_their_faults_and_every_panel_about_them_has_data() {
    let rig = Rig::new(1).await;
    let (proxy, refuses) = refusing(&rig).await;
    refuses.store(false, Ordering::Relaxed);
    let processor = rig.processor().start().unwrap();
    let uploader = rig.uploader().env(env::S3_ENDPOINT_URL, proxy.endpoint());
    let uploader = uploader.start().unwrap();
    let api = api(&rig).start().unwrap();
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    let monitoring = Monitoring::read().unwrap();
    let workers = [("processor", &processor), ("uploader", &uploader), ("api", &api)];
    let prometheus = prometheus(&monitoring, &workers).await;
    let tasks = rig.submit_many(1).await;
    rig.wait_for_webhooks(&tasks).await;
    eventually("a scraped webhook", STEP_TIMEOUT, async || {
        let delivered = "separation_webhooks_total > 0";
        anyhow::Ok(!prometheus.query(delivered).await?.is_empty())
    })
    .await;
    let alerts = prometheus.alerts().await.unwrap();
    assert!(alerts.is_empty(), "{alerts:?}");

    let (topic, group) = (&rig.site.task_topic, &rig.site.processor_group);
    rig.kafka.publish(topic, "a", "malformed", &[]).await.unwrap();
    let labels = [("role", "processor"), ("reason", "malformed")];
    let alert = prometheus
        .until_alert("SeparationDeadLetters", &labels, STEP_TIMEOUT)
        .await;
    let summary = "Pool media/vocals, processor: dead letters (malformed)";
    assert_eq!(alert.annotations["summary"], summary);

    refuses.store(true, Ordering::Relaxed);
    rig.submit(2).await;
    let labels = [("role", "uploader"), ("dependency", "s3:SignatureDoesNotMatch")];
    prometheus
        .until_alert("SeparationStoreRefused", &labels, STEP_TIMEOUT)
        .await;

    let queries = monitoring.queries(MetricsOf::Workers);
    eventually("data in every panel", STEP_TIMEOUT, async || {
        // Durations need work between two scrapes.
        ask(address, "/health").await?;
        if rig.kafka.total_lag(group, topic).await? == 0 {
            rig.submit(3).await;
        }
        let without = prometheus.without_data(&queries).await?;
        anyhow::ensure!(without.is_empty(), "no data: {without:?}");
        anyhow::Ok(true)
    })
    .await;
}

#[tokio::test]
async fn the_alert_about_kafka_fires_for_a_worker_with_a_wrong_password() {
    let rig = Rig::new(1).await;
    let secure = KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(secure).await.unwrap();
    let api = with_credentials(api(&rig), "SCRAM-SHA-512", "not-the-password", &kafka);
    let api = api.start().unwrap();
    let prometheus = prometheus(&Monitoring::read().unwrap(), &[("api", &api)]).await;
    let labels = [("pool", "vocals"), ("role", "api")];
    let alert = prometheus
        .until_alert("SeparationKafkaRefused", &labels, STEP_TIMEOUT)
        .await;
    assert!(alert.labels["dependency"].starts_with("kafka:"), "{alert:?}");
}
