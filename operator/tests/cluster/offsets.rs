//! Committed offsets that are odd, old, or moved by somebody else.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::json;

use crate::adoption::{said, waiting};
use crate::members::work_off;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

async fn commit(pool: &PoolUnderTest<'_>, offsets: &[i64]) {
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), offsets).await;
    committed.expect("committed");
}

/// Publishes one message in a transaction.
async fn publish_in_a_transaction(pool: &PoolUnderTest<'_>) {
    let topic = pool.tasks();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", pool.kafka.bootstrap())
        .set("transactional.id", &topic)
        .create()
        .expect("a producer");
    let publish = move || {
        producer.init_transactions(SOON)?;
        producer.begin_transaction()?;
        let sent = producer.send(BaseRecord::<str, str>::to(&topic).partition(0).payload("task"));
        sent.map_err(|(error, _)| error)?;
        producer.commit_transaction(SOON)
    };
    let published = tokio::task::spawn_blocking(publish).await.expect("no panic");
    published.expect("a transaction");
}

#[tokio::test]
async fn a_marker_of_a_transaction_that_a_worker_stepped_over_is_no_work() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start_with(&rig, &["--offset-refresh-seconds", "1"]);
    pool.until_adopted().await;
    publish_in_a_transaction(&pool).await;
    pool.until_replicas(1, SOON).await;
    // The message, and the marker behind it, which no reader is ever given: workers commit the end that they reached.
    commit(&pool, &[2, 0]).await;
    pool.until_status("nothing that waits", SOON, |status| waiting(status) == Some(0))
        .await;
    pool.until_replicas(0, SOON).await;
}

#[tokio::test]
async fn messages_that_were_deleted_before_they_were_read_are_flagged_and_not_counted() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    for number in 0..10 {
        pool.publish(0, &format!("task {number}")).await;
    }
    pool.until_status("ten messages", SOON, |status| waiting(status) == Some(10))
        .await;
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", pool.kafka.bootstrap())
        .create()
        .expect("a client");
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&pool.tasks(), 0, Offset::Offset(6))
        .expect("an offset");
    admin
        .delete_records(&before, &AdminOptions::new())
        .await
        .expect("deleted");
    let status = pool
        .until_status("four messages", SOON, |status| waiting(status) == Some(4))
        .await;
    let told = said(&status, "Degraded", "True").expect("told");
    assert!(told.contains("up to 6 messages expired"), "{told}");
    let left: Vec<_> = (6..10).map(|number| format!("task {number}")).collect();
    assert_eq!(work_off(&pool, 4).await, left);
}

#[tokio::test]
async fn a_group_that_somebody_rewinds_gets_workers() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.publish_one_each(3).await;
    commit(&pool, &[1; 3]).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start_with(&rig, &["--offset-refresh-seconds", "2"]);
    pool.until_adopted().await;
    assert_eq!(pool.replicas().await, Some(0));
    commit(&pool, &[0; 3]).await;
    pool.until_replicas(3, SOON).await;
}

#[tokio::test]
async fn offsets_of_a_group_without_workers_outlive_the_brokers_retention() {
    let settings = [
        ("offsets.retention.minutes", "1"),
        ("offsets.retention.check.interval.ms", "1000"),
    ];
    let kafka = Kafka::start(KafkaOptions {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..KafkaOptions::default()
    })
    .await
    .expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &kafka, "vocals", 2).await;
    pool.publish_one_each(2).await;
    pool.apply(&json!({"processor": {"autoOffsetReset": "latest"}}))
        .await;
    let operator = OperatorProcess::start_with(&rig, &["--keep-offsets-seconds", "10"]);
    pool.until_adopted().await;

    // A group of which nobody takes care shows when the brokers forget.
    let forgotten = "nobody's";
    let tasks = pool.tasks();
    kafka.commit(forgotten, &tasks, &[1; 2]).await.expect("committed");
    let minutes = Duration::from_secs(180);
    eventually("group that is forgotten", minutes, async || {
        // Each question is a client of its own.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let offsets = kafka.lag(forgotten, &tasks).await?;
        anyhow::Ok(offsets.iter().all(|partition| partition.committed.is_none()))
    })
    .await;
    let kept = kafka.lag(&pool.group(), &tasks).await.expect("an answer");
    let kept: Vec<_> = kept.iter().map(|partition| partition.committed).collect();
    assert_eq!(kept, [Some(1); 2], "{}", operator.log());
    assert_eq!(pool.replicas().await, Some(0));
}
