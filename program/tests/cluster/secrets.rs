//! Secrets with Kafka credentials: missing, created later, and rotated.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::json;

use crate::adoption::condition_message;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Interval after which the brokers require authentication again.
const REAUTHENTICATE_AFTER: Duration = Duration::from_secs(3);

/// Writes the Secret `kafka-user`.
pub(crate) async fn write_secret(rig: &Rig, username: &str, password: &str) {
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

/// The hash of the Secrets in a Deployment's pod template.
pub(crate) fn secrets_hash(deployment: &Deployment) -> Option<String> {
    let metadata = deployment.spec.template.metadata.as_ref()?;
    metadata
        .annotations
        .as_ref()?
        .get("separation.dev/secrets-hash")
        .cloned()
}

#[tokio::test]
async fn a_missing_secret_is_reported_with_its_fix_and_a_rotated_one_replaces_the_pods() {
    let kafka = Kafka::start(KafkaOptions {
        secure: true,
        settings: vec![(
            "connections.max.reauth.ms".to_owned(),
            REAUTHENTICATE_AFTER.as_millis().to_string(),
        )],
        ..KafkaOptions::default()
    })
    .await
    .expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &kafka, "vocals", 4).await;
    pool.apply(&json!({"kafka": {
        "bootstrapServers": kafka.bootstrap_sasl_plaintext(),
        "sasl": {"usernameSecretRef": {"name": "kafka-user"}, "passwordSecretRef": {"name": "kafka-user"}},
    }}))
    .await;
    let operator = OperatorProcess::start_with(&rig, &["--secret-refresh-seconds", "1"]);
    let unknown = |status: &_, part: &str| {
        condition_message(status, "LagKnown", "False").is_some_and(|text| text.contains(part))
    };
    let missing = format!("Secret {}/kafka-user", rig.namespace);
    let status = pool
        .until_status("missing secret", SOON, |status| unknown(status, &missing))
        .await;
    let message = condition_message(&status, "LagKnown", "False").expect("a message");
    assert!(
        message.contains("fix: kubectl create secret generic kafka-user"),
        "{message}"
    );

    let user = kafka.security().username();
    write_secret(&rig, user, kafka.security().password()).await;
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    let before = secrets_hash(&pool.deployment().await);
    assert!(before.is_some(), "{}", operator.log());

    // The brokers change first, and the Secret follows.
    kafka.set_password("another").await.expect("changed");
    let status = pool
        .until_status("refused credentials", SOON, |status| {
            unknown(status, "rejected authentication with SCRAM-SHA-512")
                && condition_message(status, "DependenciesAvailable", "False").is_some()
        })
        .await;
    let message = condition_message(&status, "LagKnown", "False").expect("a message");
    assert!(message.contains("fix: check username and password"), "{message}");
    let condition = status
        .conditions
        .iter()
        .find(|found| found.type_ == "DependenciesAvailable");
    let reason = condition.map(|condition| &*condition.reason);
    assert_eq!(reason, Some("KafkaRefused"));
    pool.publish_one_each(4).await;
    write_secret(&rig, user, "another").await;
    pool.until_replicas(4, SOON).await;
    // Pods that were started with the old password are replaced, because the template changes.
    let after = eventually("replaced pods", SOON, async || {
        let now = secrets_hash(&pool.deployment().await);
        (now != before && now.is_some()).then_some(now)
    })
    .await;
    // A Secret that is briefly missing replaces no pods, nor does one that is rewritten unchanged.
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    secrets
        .delete("kafka-user", &Default::default())
        .await
        .expect("a secret");
    pool.until_status("missing secret", SOON, |status| unknown(status, &missing))
        .await;
    write_secret(&rig, user, "another").await;
    pool.until_status("known lag", SOON, |status| {
        condition_message(status, "LagKnown", "True").is_some()
    })
    .await;
    assert_eq!(secrets_hash(&pool.deployment().await), after);
    for secret in [kafka.security().password(), "another"] {
        assert!(!operator.log().contains(&format!("\"{secret}\"")));
    }
}
