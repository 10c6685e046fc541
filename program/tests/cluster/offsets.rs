//! Committed offsets that are inconsistent, old, or changed by another client.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::json;

use crate::adoption::{condition_message, known_lag};
use crate::members::consume_backlog;
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
async fn a_consumed_transaction_marker_is_not_lag() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start_with(&rig, &["--offset-refresh-seconds", "1"]);
    pool.until_adopted().await;
    publish_in_a_transaction(&pool).await;
    pool.until_replicas(1, SOON).await;
    // The message and its transaction marker, which no consumer receives: workers commit the end offset that they
    // reached.
    commit(&pool, &[2, 0]).await;
    pool.until_status("lag of 0", SOON, |status| known_lag(status) == Some(0))
        .await;
    pool.until_replicas(0, SOON).await;
}

#[tokio::test]
async fn expired_messages_are_reported_and_not_counted() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    for number in 0..10 {
        pool.publish(0, &format!("task {number}")).await;
    }
    pool.until_status("ten messages", SOON, |status| known_lag(status) == Some(10))
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
        .until_status("four messages", SOON, |status| known_lag(status) == Some(4))
        .await;
    let message = condition_message(&status, "Degraded", "True").expect("a message");
    assert!(message.contains("up to 6 messages expired"), "{message}");
    let left: Vec<_> = (6..10).map(|number| format!("task {number}")).collect();
    assert_eq!(consume_backlog(&pool, 4).await, left);
}

#[tokio::test]
async fn a_rewound_group_gets_workers() {
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

/// A consumer that joins a group, consumes and commits this many messages, and leaves.
async fn join_commit_and_leave(kafka: &Kafka, group: &str, client_id: &str, topic: &str, messages: usize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", group)
        .set("client.id", client_id)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    let mut taken = 0;
    eventually(&format!("{messages} messages for {group}"), SOON, async || {
        if let Some(Ok(message)) = consumer.poll(Duration::ZERO) {
            consumer
                .commit_message(&message, CommitMode::Sync)
                .expect("committed");
            taken += 1;
        }
        taken == messages
    })
    .await;
    // Leaving needs a response of the coordinator.
    let left = tokio::task::spawn_blocking(move || drop(consumer));
    left.await.expect("it leaves");
}

async fn committed(kafka: &Kafka, group: &str, topic: &str) -> Vec<Option<i64>> {
    let lag = kafka.lag(group, topic).await.expect("an answer");
    lag.iter().map(|partition| partition.committed).collect()
}

/// Kafka counts the retention of an empty group from when its last member left, however recent its last commit is.
#[tokio::test]
async fn offsets_of_a_group_without_workers_outlive_the_brokers_retention() {
    /// Twice the retention, and some seconds.
    const AT_ZERO: Duration = Duration::from_secs(130);
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
    pool.apply(&json!({"processor": {"initialOffset": "Latest"}}))
        .await;
    let operator = OperatorProcess::start_with(&rig, &["--keep-offsets-seconds", "10"]);
    pool.until_adopted().await;
    let (tasks, results) = (pool.tasks(), pool.results());
    let uploaders = format!("uploaders-{}", pool.tag);
    pool.publish_one_each(2).await;
    kafka
        .publish_to(&results, 0, "key", "{}")
        .await
        .expect("published");
    pool.until_replicas(2, SOON).await;
    // No pool keeps this group's offsets.
    let forgotten = "unattended";
    join_commit_and_leave(&kafka, forgotten, "client", &tasks, 2).await;
    join_commit_and_leave(&kafka, &pool.group(), "vocals-processor-1", &tasks, 2).await;
    join_commit_and_leave(&kafka, &uploaders, "vocals-uploader-1", &results, 1).await;
    pool.until_replicas(0, SOON).await;
    // A disabled role keeps its offsets too.
    pool.apply(&json!({"processor": {"initialOffset": "Latest"}, "uploader": {"enabled": false}}))
        .await;
    let generation = pool.deployment().await.metadata.generation;
    let at_zero = Instant::now();
    while at_zero.elapsed() < AT_ZERO {
        // Each request uses a new client.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let kept = (
            committed(&kafka, &pool.group(), &tasks).await,
            committed(&kafka, &uploaders, &results).await,
        );
        assert_eq!(
            kept,
            (vec![Some(1); 2], vec![Some(1)]),
            "after {:?}: {}",
            at_zero.elapsed(),
            operator.log()
        );
    }
    assert_eq!(
        committed(&kafka, forgotten, &tasks).await,
        [None; 2],
        "the brokers forget"
    );
    assert_eq!(pool.deployment().await.metadata.generation, generation);
    assert!(!operator.log().contains("have lost the group's offsets"));
    let status = pool.pools().get(&pool.name).await.expect("the pool").status;
    let uploader = status
        .and_then(|status| status.uploader)
        .and_then(|role| role.offsets);
    assert_eq!(uploader.map(|offsets| offsets.committed), Some(vec![1]));
}

#[tokio::test]
async fn lost_offsets_are_restored_from_the_status_without_starting_a_worker() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.publish_one_each(2).await;
    commit(&pool, &[1; 2]).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start_briefly_leading(&rig);
    pool.until_status("remembered offsets", SOON, |status| {
        let processor = status.processor.as_ref();
        let offsets = processor.and_then(|role| role.offsets.as_ref());
        offsets.is_some_and(|offsets| offsets.committed == [1, 1])
    })
    .await;
    let generation = pool.deployment().await.metadata.generation;

    // As on brokers that ignore the retention time of a commit, while no operator runs.
    operator.process.kill_9().await.expect("it runs");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", pool.kafka.bootstrap())
        .create()
        .expect("a client");
    let deleted = admin.delete_groups(&[&pool.group()], &AdminOptions::new()).await;
    deleted.expect("an answer").remove(0).expect("deleted");
    let tasks = pool.tasks();
    assert_eq!(committed(pool.kafka, &pool.group(), &tasks).await, [None; 2]);
    let operator = OperatorProcess::start_briefly_leading(&rig);
    eventually("offsets", 2 * SOON, async || {
        committed(pool.kafka, &pool.group(), &tasks).await == [Some(1); 2]
    })
    .await;
    operator.until_read_again(4.0).await;
    assert_eq!(
        pool.deployment().await.metadata.generation,
        generation,
        "{}",
        operator.log()
    );
    pool.publish(1, "{}").await;
    pool.until_replicas(1, SOON).await;
}

#[tokio::test]
async fn kept_offsets_are_the_groups_current_ones_with_their_metadata() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    for _ in 0..3 {
        pool.publish(0, "{}").await;
    }
    let group = pool.group();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pool.kafka.bootstrap())
        .set("group.id", &group)
        .create()
        .expect("a consumer");
    let mut attempt = TopicPartitionList::new();
    let mut partition = attempt.add_partition(&pool.tasks(), 0);
    partition.set_offset(Offset::Offset(3)).expect("an offset");
    partition.set_metadata("attempt=2;percent=40");
    consumer.assign(&attempt).expect("assigned");
    consumer.commit(&attempt, CommitMode::Sync).expect("committed");
    // Readings of an idle group are up to a minute old: the committed offsets must come from a newer one.
    pool.apply(&json!({})).await;
    let arguments = ["--keep-offsets-seconds", "5", "--offset-refresh-seconds", "300"];
    let _operator = OperatorProcess::start_with(&rig, &arguments);
    pool.until_adopted().await;
    let found = async || {
        let lag = pool.kafka.lag(&group, &pool.tasks()).await.expect("an answer");
        (lag[0].committed, lag[0].metadata.clone())
    };
    let mut rewound = TopicPartitionList::new();
    let mut partition = rewound.add_partition(&pool.tasks(), 0);
    partition.set_offset(Offset::Offset(1)).expect("an offset");
    partition.set_metadata("attempt=3");
    consumer.commit(&rewound, CommitMode::Sync).expect("committed");
    for _ in 0..6 {
        assert_eq!(found().await, (Some(1), "attempt=3".to_owned()));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
