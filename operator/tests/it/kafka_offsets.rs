//! Offsets that are initialized before the first worker starts, checked by consuming as workers do.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _};
use separation_contract::kafka::{Assignor, OffsetReset, Timings, connection, one_message_consumer};
use separation_kafka::{Cluster, Commit, Deadline};
use separation_operator::apply::offsets;
use separation_operator::observe::{Adoption, Query, QueryResult};
use separation_testbed::{Kafka, eventually};

use crate::reading::{DEADLINE, Reading, adopted, plain, query};

fn from_latest(topic: &str) -> Query {
    Query {
        adoption: Adoption::pending(OffsetReset::Latest),
        ..query(topic)
    }
}

async fn adopt(kafka: &Kafka, query: &Query, found: &QueryResult) {
    let commits = offsets::to_adopt(found.offsets.as_ref().expect("offsets"), &query.adoption);
    let cluster = Cluster::new(&plain(&kafka.bootstrap())).expect("settings");
    let (commits, deadline) = (commits.expect("all were read"), Deadline::after(DEADLINE));
    let committed = cluster
        .commit(&query.group, &query.topic, &commits, &deadline)
        .await;
    committed.expect("committed");
}

/// The messages that a worker of the group consumes, until it has `count`. It starts at the first message of partitions
/// without a committed offset.
async fn consume(kafka: &Kafka, query: &Query, count: usize) -> Vec<String> {
    let mut config = ClientConfig::new();
    let timings = Timings::PROCESSOR;
    let consumer = one_message_consumer(
        &query.group,
        &timings,
        Assignor::CooperativeSticky,
        OffsetReset::Earliest,
    );
    for (name, value) in connection(&kafka.bootstrap(), "worker")
        .into_iter()
        .chain(consumer)
    {
        config.set(name, value);
    }
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[&query.topic]).expect("subscribed");
    let mut taken = Vec::new();
    eventually(&format!("{count} messages"), 3 * DEADLINE, async || {
        if let Some(Ok(message)) = consumer.poll(Duration::ZERO) {
            taken.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
        }
        taken.len() >= count
    })
    .await;
    // No more messages: skipped ones are not delivered, and consumed ones are not delivered twice.
    assert!(consumer.poll(Duration::from_millis(500)).is_none());
    taken.sort();
    taken
}

async fn publish(kafka: &Kafka, topic: &str, partition: i32, value: &str) {
    kafka
        .publish_to(topic, partition, "key", value)
        .await
        .expect("published");
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_skips_messages_before_the_adoption_and_none_after_it() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("offsets-latest", 2).await.unwrap();
    publish(kafka, "offsets-latest", 0, "before").await;
    let query = from_latest("offsets-latest");
    let mut reading = Reading::of(&kafka.bootstrap());
    let found = reading.read(&query).await;
    adopt(kafka, &query, &found).await;
    let query = adopted(&query, &found);

    // No member has joined yet, and new partitions have no offsets.
    publish(kafka, "offsets-latest", 0, "at zero replicas").await;
    kafka.add_partitions("offsets-latest", 3).await.unwrap();
    publish(kafka, "offsets-latest", 2, "in a new partition").await;
    assert_eq!(
        consume(kafka, &query, 2).await,
        ["at zero replicas", "in a new partition"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_starts_at_its_first_message_even_if_old_offsets_fit() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("offsets-recreated", 1).await.unwrap();
    let query = from_latest("offsets-recreated");
    let mut reading = Reading::of(&kafka.bootstrap());
    let found = reading.read(&query).await;
    adopt(kafka, &query, &found).await;
    let query = adopted(&query, &found);
    kafka.delete_topic("offsets-recreated").await.unwrap();
    kafka.create_topic("offsets-recreated", 1).await.unwrap();
    for value in ["first", "second", "third"] {
        publish(kafka, "offsets-recreated", 0, value).await;
    }
    // An offset of the old topic that the new one has too.
    kafka
        .commit(&query.group, "offsets-recreated", &[2])
        .await
        .unwrap();

    reading.later();
    let found = eventually("the new topic", DEADLINE, async || {
        let found = reading.read(&query).await;
        found.offsets.is_some().then_some(found)
    })
    .await;
    adopt(kafka, &query, &found).await;
    assert_eq!(consume(kafka, &query, 3).await, ["first", "second", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_group_with_members_are_not_touched() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("offsets-members", 1).await.unwrap();
    let query = query("offsets-members");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", &*query.group)
        .create()
        .unwrap();
    consumer.subscribe(&["offsets-members"]).unwrap();
    eventually("a member", DEADLINE, async || {
        let _ = consumer.poll(Duration::ZERO);
        consumer.assignment().is_ok_and(|assigned| assigned.count() == 1)
    })
    .await;
    let cluster = Cluster::new(&plain(&kafka.bootstrap())).expect("settings");
    let deadline = Deadline::after(DEADLINE);
    let commits = [Commit::new(0, 0)];
    let commit = cluster.commit(&query.group, &query.topic, &commits, &deadline);
    let refused = commit.await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot commit for offsets-members-workers: the group has members; fix: stop them first, or let them commit"
    );
}
