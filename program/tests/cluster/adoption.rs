//! Topics and groups that are new, missing, recreated or larger than before: the lag that is counted, and the messages
//! that a real worker then consumes.

use separation_operator::crd::{RoleStatus, SeparationPoolStatus};
use serde_json::json;

use crate::members::consume_backlog;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Deletes and recreates the task topic.
async fn recreate_topic(pool: &PoolUnderTest<'_>, partitions: i32) {
    pool.kafka.delete_topic(&pool.tasks()).await.expect("deleted");
    pool.kafka
        .create_topic(&pool.tasks(), partitions)
        .await
        .expect("created");
}

fn processor(status: &SeparationPoolStatus) -> Option<&RoleStatus> {
    status.processor.as_ref()
}

/// The message of a condition with this status.
pub(crate) fn condition_message<'a>(
    status: &'a SeparationPoolStatus,
    type_: &str,
    condition_status: &str,
) -> Option<&'a str> {
    let mut conditions = status.conditions.iter();
    let found =
        conditions.find(|condition| condition.type_ == type_ && condition.status == condition_status)?;
    Some(&found.message)
}

/// Messages of a known lag.
pub(crate) fn known_lag(status: &SeparationPoolStatus) -> Option<i64> {
    processor(status)?.lag.as_ref()?.messages
}

async fn until_readopted(pool: &PoolUnderTest<'_>, before: &SeparationPoolStatus) {
    let id = |status: &SeparationPoolStatus| Some(processor(status)?.offsets.as_ref()?.topic_id.clone());
    let old = id(before);
    pool.until_status("adoption of the new topic", SOON, |status| id(status) != old)
        .await;
}

#[tokio::test]
async fn a_new_group_starts_at_the_first_message_by_default() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.publish(0, "before").await;
    pool.publish(2, "before").await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_replicas(2, SOON).await;
    pool.publish(1, "after").await;
    pool.until_replicas(3, SOON).await;
    assert_eq!(consume_backlog(&pool, 3).await, ["after", "before", "before"]);
}

#[tokio::test]
async fn latest_skips_messages_published_before_the_adoption_and_none_after_it() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.publish(0, "before").await;
    pool.apply(&json!({"processor": {"initialOffset": "Latest"}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    let status = pool.until_adopted().await;
    assert_eq!((known_lag(&status), pool.replicas().await), (Some(0), Some(0)));

    pool.publish(0, "at zero replicas").await;
    let added = pool.kafka.add_partitions(&pool.tasks(), 4).await;
    added.expect("more partitions");
    pool.publish(3, "in a new partition").await;
    pool.until_replicas(2, SOON).await;
    assert_eq!(
        consume_backlog(&pool, 2).await,
        ["at zero replicas", "in a new partition"]
    );
}

#[tokio::test]
async fn latest_skips_nothing_in_a_recreated_topic() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.publish(0, "before").await;
    pool.apply(&json!({"processor": {"initialOffset": "Latest"}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    recreate_topic(&pool, 2).await;
    for value in ["first", "second", "third"] {
        pool.publish(0, value).await;
    }
    until_readopted(&pool, &before).await;
    pool.publish(1, "later").await;
    pool.until_replicas(2, SOON).await;
    assert_eq!(
        consume_backlog(&pool, 4).await,
        ["first", "later", "second", "third"]
    );
}

#[tokio::test]
async fn offsets_of_an_old_topic_that_fit_the_new_one_skip_nothing() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    // While no operator runs.
    operator.process.kill_9().await.expect("it runs");
    recreate_topic(&pool, 1).await;
    for value in ["first", "second", "third"] {
        pool.publish(0, value).await;
    }
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[2]).await;
    committed.expect("committed");
    let _operator = OperatorProcess::start(&rig);
    until_readopted(&pool, &before).await;
    pool.until_replicas(1, SOON).await;
    assert_eq!(consume_backlog(&pool, 3).await, ["first", "second", "third"]);
}

#[tokio::test]
async fn a_recreated_empty_topic_needs_no_workers() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.publish_one_each(4).await;
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[1; 4]).await;
    committed.expect("committed");
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    recreate_topic(&pool, 4).await;
    until_readopted(&pool, &before).await;
    let status = pool
        .until_status("known lag", SOON, |status| known_lag(status) == Some(0))
        .await;
    assert_eq!(processor(&status).expect("a processor").replicas.desired, 0);
    // The topic was created and never written since.
    assert_eq!(pool.deployment().await.metadata.generation, Some(1));
}

#[tokio::test]
async fn offsets_beyond_the_end_of_a_new_topic_are_reported_and_its_messages_are_consumed() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 12).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;

    // While no operator runs, as a tool does that copies offsets from another cluster.
    operator.process.kill_9().await.expect("it runs");
    recreate_topic(&pool, 12).await;
    pool.publish_one_each(12).await;
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[20; 12]).await;
    committed.expect("committed");
    let _operator = OperatorProcess::start(&rig);
    let status = pool
        .until_status("offset anomaly", SOON, |status| {
            condition_message(status, "Degraded", "True").is_some_and(|text| text.contains("recreated"))
        })
        .await;
    assert_eq!(known_lag(&status), Some(12));
    pool.until_replicas(12, SOON).await;
    assert_eq!(consume_backlog(&pool, 12).await.len(), 12);
}

#[tokio::test]
async fn committed_offsets_beyond_the_end_hide_no_messages() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 12).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start_with(&rig, &["--offset-refresh-seconds", "1"]);
    pool.until_adopted().await;
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[20; 12]).await;
    committed.expect("committed");
    pool.publish_one_each(12).await;
    pool.until_replicas(12, SOON).await;
    let status = pool
        .until_status("offset anomaly", SOON, |status| {
            known_lag(status) == Some(12)
                && condition_message(status, "Degraded", "True")
                    .is_some_and(|text| text.contains("committed offset 20"))
        })
        .await;
    let message = condition_message(&status, "Degraded", "True").expect("a message");
    assert!(message.contains("counted from the start"), "{message}");
    assert_eq!(consume_backlog(&pool, 12).await.len(), 12);
}

#[tokio::test]
async fn messages_in_added_partitions_are_counted_and_none_is_skipped() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({"processor": {"initialOffset": "Latest"}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    let added = pool.kafka.add_partitions(&pool.tasks(), 8).await;
    added.expect("more partitions");
    for partition in 4..8 {
        for _ in 0..3 {
            pool.publish(partition, "{}").await;
        }
    }
    let status = pool
        .until_status("all messages", SOON, |status| known_lag(status) == Some(12))
        .await;
    let processor = processor(&status).expect("a processor");
    assert_eq!(
        (processor.partitions, processor.partitions_with_work),
        (Some(8), Some(4))
    );
    pool.until_replicas(4, SOON).await;
    assert_eq!(consume_backlog(&pool, 12).await.len(), 12);
}
