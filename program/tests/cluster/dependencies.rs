//! Dependencies that refuse the workers of a pool: the pool reports which, since when, and the fix, and adds no worker.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use separation_contract::offset_metadata::{Hold, OffsetMetadata};
use separation_operator::crd::SeparationPoolStatus;
use serde_json::json;

use crate::members::{Member, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// A condition, as its status, reason and message.
fn condition<'a>(status: &'a SeparationPoolStatus, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|found| found.type_ == type_)?;
    Some((&found.status, &found.reason, &found.message))
}

/// Waits until `DependenciesAvailable` has this status and reason, and returns its message. `Ready` then has the same
/// status.
async fn until_available(pool: &PoolUnderTest<'_>, status: &str, reason: &str) -> String {
    let what = format!("{status} for {reason}");
    let matches = |found: &SeparationPoolStatus| {
        condition(found, "DependenciesAvailable").is_some_and(|found| (found.0, found.1) == (status, reason))
    };
    let found = pool.until_status(&what, SOON, matches).await;
    let ready = if status == "True" { "Available" } else { reason };
    let is_ready = condition(&found, "Ready").map(|found| (found.0, found.1));
    assert_eq!(is_ready, Some((status, ready)), "{found:?}");
    condition(&found, "DependenciesAvailable").map_or_else(String::new, |found| found.2.to_owned())
}

/// Commits the first offset of partition 0 with metadata, as a worker does that starts a task.
async fn commit_with(pool: &PoolUnderTest<'_>, metadata: &OffsetMetadata) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pool.kafka.bootstrap())
        .set("group.id", pool.group())
        .create()
        .expect("a consumer");
    let mut offsets = TopicPartitionList::new();
    let mut partition = offsets.add_partition(&pool.tasks(), 0);
    partition.set_offset(Offset::Offset(0)).expect("an offset");
    partition.set_metadata(metadata.to_string());
    let committed = tokio::task::spawn_blocking(move || consumer.commit(&offsets, CommitMode::Sync));
    committed.await.expect("it ends").expect("committed");
}

#[tokio::test]
async fn a_refusal_reported_by_a_worker_is_a_condition_and_stops_scale_up_until_it_ends() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    until_available(&pool, "True", "NoProblems").await;
    pool.publish_one_each(1).await;
    pool.until_replicas(1, SOON).await;

    let mut held = OffsetMetadata::attempt(1);
    held.held = Some(Hold::new("s3:403", 1_767_225_600));
    commit_with(&pool, &held).await;
    let message = until_available(&pool, "False", "StoreRefused").await;
    assert!(
        message.starts_with("processor: s3:403 refuses workers on 1 partitions since 2026-01-01T00:00:00Z")
            && message.contains("fix: check the Secret of spec.storage.s3"),
        "{message}"
    );
    pool.publish_one_each(4).await;
    pool.until_status("hold", SOON, |status| {
        let processor = status.processor.as_ref();
        processor.is_some_and(|processor| processor.reason == "HeldByDependency")
    })
    .await;
    assert_eq!(pool.replicas().await, Some(1));

    commit_with(&pool, &OffsetMetadata::attempt(1)).await;
    until_available(&pool, "True", "NoProblems").await;
    pool.until_replicas(4, SOON).await;
    operator.end().await;
}

#[tokio::test]
async fn ready_pods_that_are_not_members_of_their_group_are_named() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let consumer = json!({"sessionTimeoutMs": 6_000, "heartbeatIntervalMs": 500});
    pool.apply(&json!({"processor": {"consumer": consumer}})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    let pods = ready_pods(&pool, 2).await;
    let _member = Member::of(&pool, &pods[0], Tasks::Hold);
    let message = until_available(&pool, "False", "WorkersNotMembers").await;
    let expected = format!(
        "1 of 2 ready pods have not been members of consumer group {} for 6 s ({})",
        pool.group(),
        pods[1]
    );
    assert!(
        message.contains(&expected) && message.contains("fix:"),
        "{message}"
    );
    let _other = Member::of(&pool, &pods[1], Tasks::Hold);
    until_available(&pool, "True", "NoProblems").await;
    operator.end().await;
}
