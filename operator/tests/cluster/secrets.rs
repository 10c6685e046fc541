//! The secrets that open Kafka: missing, made later, and rotated.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use separation_testbed::{Kafka, KafkaOptions};
use serde_json::json;

use crate::adoption::said;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// How soon the brokers want to be told the password again.
const LOGIN_ENDS: Duration = Duration::from_secs(3);

async fn write_secret(rig: &Rig, username: &str, password: &str) {
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kafka-user"},
        "stringData": {"username": username, "password": password},
    });
    let params = PatchParams::apply("a-person").force();
    let written = secrets.patch("kafka-user", &params, &Patch::Apply(secret)).await;
    written.expect("a secret");
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_with_its_fix_and_one_that_is_rotated_is_taken_up() {
    let kafka = Kafka::start(KafkaOptions {
        secure: true,
        settings: vec![(
            "connections.max.reauth.ms".to_owned(),
            LOGIN_ENDS.as_millis().to_string(),
        )],
        ..KafkaOptions::default()
    })
    .await
    .expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &kafka, "vocals", 4).await;
    pool.apply(&json!({"kafka": {
        "bootstrapServers": kafka.bootstrap_sasl_plaintext(),
        "sasl": {"mechanism": "SCRAM-SHA-512", "secretRef": {"name": "kafka-user"}},
    }}))
    .await;
    let operator = OperatorProcess::start_with(&rig, &["--secret-refresh-seconds", "1"]);
    let unknown =
        |status: &_, part: &str| said(status, "LagKnown", "False").is_some_and(|text| text.contains(part));
    let missing = format!("secret {}/kafka-user", rig.namespace);
    let status = pool
        .until_status("missing secret", SOON, |status| unknown(status, &missing))
        .await;
    let told = said(&status, "LagKnown", "False").expect("told");
    assert!(
        told.contains("fix: kubectl create secret generic kafka-user"),
        "{told}"
    );

    let user = kafka.security().username();
    write_secret(&rig, user, kafka.security().password()).await;
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;

    // The brokers know first, and the Secret follows.
    kafka.set_password("another").await.expect("changed");
    let status = pool
        .until_status("refused login", SOON, |status| {
            unknown(status, "refuses the login by SCRAM-SHA-512")
        })
        .await;
    let told = said(&status, "LagKnown", "False").expect("told");
    assert!(told.contains("fix: check username and password"), "{told}");
    pool.publish_one_each(4).await;
    write_secret(&rig, user, "another").await;
    pool.until_replicas(4, SOON).await;
    // Replicas only ever rose.
    let generation = pool.deployment().await.metadata.generation;
    assert_eq!(generation, Some(3), "{}", operator.log());
    for secret in [kafka.security().password(), "another"] {
        assert!(!operator.log().contains(&format!("\"{secret}\"")));
    }
}
