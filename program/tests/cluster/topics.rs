//! Topics that do not exist: created where the credentials allow it, else reported with the command.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use separation_testbed::{AUTHORIZER, Kafka, KafkaOptions};
use serde_json::json;

use crate::adoption::{condition_message, known_lag};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

#[tokio::test]
async fn a_missing_topic_is_created_with_a_partition_for_each_replica() {
    let rig = Rig::new().await;
    let kafka = Kafka::shared().await.expect("Kafka");
    let pool = PoolUnderTest::without_tasks(&rig, kafka, "vocals").await;
    pool.apply(&json!({"processor": {"scaling": {"maxReplicas": 3}}}))
        .await;
    let operator = OperatorProcess::start(&rig);
    let status = pool.until_adopted().await;
    let processor = status.processor.expect("a processor");
    assert_eq!(processor.partitions, Some(3));
    let dead_letters = format!("{}_dead_letters", pool.tasks());
    let leader = async |partition| {
        let leader = pool.kafka.leader(&dead_letters, partition).await;
        leader.expect("a response")
    };
    assert!(leader(0).await.is_some(), "it has a dead-letter topic");
    assert_eq!(leader(1).await, None);
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;

    // One that is deleted later is not created again: a person may be about to recreate it.
    pool.kafka.delete_topic(&pool.tasks()).await.expect("deleted");
    pool.until_status("missing topic", SOON, |status| {
        let message = condition_message(status, "LagKnown", "False");
        message.is_some_and(|message| message.contains("it does not exist"))
    })
    .await;
    operator.until_read_again(3.0).await;
    let status = pool.pools().get(&pool.name).await.expect("the pool").status;
    assert_eq!(known_lag(&status.expect("a status")), None);
    assert_eq!(pool.replicas().await, Some(3));
}

#[tokio::test]
async fn a_topic_that_may_not_be_created_is_reported_with_the_command() {
    let rig = Rig::new().await;
    let settings = AUTHORIZER.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = KafkaOptions {
        secure: true,
        settings: settings.into(),
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.expect("Kafka");
    let user = format!("User:{}", kafka.security().username());
    let reading = ["Read", "--topic", "*", "--group", "*"];
    let allow = [
        &["--add", "--allow-principal", &user, "--operation"][..],
        &reading,
    ]
    .concat();
    kafka.change_acls(&allow).await.expect("permissions to read");
    let data = [
        ("username", kafka.security().username()),
        ("password", kafka.security().password()),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("kafka-user".into()),
            ..ObjectMeta::default()
        },
        string_data: Some(BTreeMap::from(data)),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let created = secrets.create(&PostParams::default(), &secret).await;
    created.expect("a Secret");

    let pool = PoolUnderTest::without_tasks(&rig, &kafka, "vocals").await;
    let reference = json!({"name": "kafka-user"});
    pool.apply(&json!({"kafka": {
        "bootstrapServers": kafka.bootstrap_sasl_plaintext(),
        "sasl": {"usernameSecretRef": reference, "passwordSecretRef": reference},
    }}))
    .await;
    let operator = OperatorProcess::start(&rig);
    let create = format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {}",
        kafka.bootstrap_sasl_plaintext(),
        pool.tasks()
    );
    let command = format!("fix: {create} --partitions 100 && {create}_dead_letters --partitions 1");
    let has_command = |message: Option<&str>| message.is_some_and(|message| message.contains(&command));
    let status = pool
        .until_status("the command", SOON, |status| {
            has_command(condition_message(status, "Ready", "False"))
        })
        .await;
    assert!(
        has_command(condition_message(&status, "Degraded", "True")),
        "{status:?}"
    );

    kafka.create_topic(&pool.tasks(), 2).await.expect("a topic");
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    pool.until_status("a pool that is ready", SOON, |status| {
        condition_message(status, "Ready", "True").is_some()
    })
    .await;
    operator.end().await;
    kafka.kill_broker(0).await.expect("it runs");
}
