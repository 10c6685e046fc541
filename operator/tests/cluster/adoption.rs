//! Topics and groups that are new, missing, made anew or larger than they were: what is counted, and what a real worker
//! then finds.

use separation_operator::crd::{RoleStatus, SeparationPoolStatus};
use separation_testbed::Kafka;
use serde_json::json;

use crate::members::work_off;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Makes the tasks' topic anew.
async fn make_anew(pool: &PoolUnderTest<'_>, partitions: i32) {
    pool.kafka.delete_topic(&pool.tasks()).await.expect("deleted");
    pool.kafka
        .create_topic(&pool.tasks(), partitions)
        .await
        .expect("made");
}

fn processor(status: &SeparationPoolStatus) -> Option<&RoleStatus> {
    status.processor.as_ref()
}

/// What a condition says, where it has this status.
pub(crate) fn said<'a>(status: &'a SeparationPoolStatus, type_: &str, holds: &str) -> Option<&'a str> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|condition| condition.type_ == type_ && condition.status == holds)?;
    Some(&found.message)
}

/// Messages that are known to wait.
pub(crate) fn waiting(status: &SeparationPoolStatus) -> Option<i64> {
    processor(status)?.lag.as_ref()?.messages
}

async fn until_readopted(pool: &PoolUnderTest<'_>, before: &SeparationPoolStatus) {
    let id = |status: &SeparationPoolStatus| Some(processor(status)?.adoption.as_ref()?.topic_id.clone());
    let old = id(before);
    pool.until_status("adoption of the new topic", SOON, |status| id(status) != old)
        .await;
}

#[tokio::test]
async fn a_group_that_was_never_seen_starts_at_the_first_message_where_earliest_is_asked_for() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.publish(0, "before").await;
    pool.publish(2, "before").await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_replicas(2, SOON).await;
    pool.publish(1, "after").await;
    pool.until_replicas(3, SOON).await;
    assert_eq!(work_off(&pool, 3).await, ["after", "before", "before"]);
}

#[tokio::test]
async fn latest_skips_what_was_published_before_the_adoption_and_nothing_after_it() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.publish(0, "before").await;
    pool.apply(&json!({"processor": {"autoOffsetReset": "latest"}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    let status = pool.until_adopted().await;
    assert_eq!((waiting(&status), pool.replicas().await), (Some(0), Some(0)));

    pool.publish(0, "at zero replicas").await;
    let added = pool.kafka.add_partitions(&pool.tasks(), 4).await;
    added.expect("more partitions");
    pool.publish(3, "in a new partition").await;
    pool.until_replicas(2, SOON).await;
    assert_eq!(
        work_off(&pool, 2).await,
        ["at zero replicas", "in a new partition"]
    );
}

#[tokio::test]
async fn latest_skips_nothing_in_a_topic_that_was_made_anew() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.publish(0, "before").await;
    pool.apply(&json!({"processor": {"autoOffsetReset": "latest"}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    make_anew(&pool, 2).await;
    for value in ["first", "second", "third"] {
        pool.publish(0, value).await;
    }
    until_readopted(&pool, &before).await;
    pool.publish(1, "later").await;
    pool.until_replicas(2, SOON).await;
    assert_eq!(work_off(&pool, 4).await, ["first", "later", "second", "third"]);
}

#[tokio::test]
async fn offsets_of_an_old_topic_that_fit_the_new_one_skip_nothing() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    // While nobody looks.
    operator.process.kill_9().await.expect("it runs");
    make_anew(&pool, 1).await;
    for value in ["first", "second", "third"] {
        pool.publish(0, value).await;
    }
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[2]).await;
    committed.expect("committed");
    let _operator = OperatorProcess::start(&rig);
    until_readopted(&pool, &before).await;
    pool.until_replicas(1, SOON).await;
    assert_eq!(work_off(&pool, 3).await, ["first", "second", "third"]);
}

#[tokio::test]
async fn a_topic_that_is_missing_is_told_with_its_fix_and_worked_on_once_it_is_there() {
    let rig = Rig::new().await;
    let kafka = Kafka::shared().await.expect("Kafka");
    let pool = PoolUnderTest::without_tasks(&rig, kafka, "vocals").await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    let status = pool
        .until_status("unknown lag", SOON, |status| {
            said(status, "LagKnown", "False").is_some()
        })
        .await;
    let told = said(&status, "LagKnown", "False").expect("told");
    assert!(
        told.contains(&format!("topic {}: the brokers know no such topic", pool.tasks()))
            && told.contains("fix: make it"),
        "{told}"
    );
    assert_eq!(processor(&status).expect("a processor").reason, "HeldUnknownLag");
    assert_eq!(pool.deployment().await.spec.replicas, Some(0));

    kafka.create_topic(&pool.tasks(), 4).await.expect("a topic");
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    pool.until_status("known lag", SOON, |status| {
        said(status, "LagKnown", "True").is_some() && waiting(status) == Some(3)
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_was_made_anew_and_is_empty_asks_for_no_workers() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.publish_one_each(4).await;
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[1; 4]).await;
    committed.expect("committed");
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    make_anew(&pool, 4).await;
    until_readopted(&pool, &before).await;
    let status = pool
        .until_status("known lag", SOON, |status| waiting(status) == Some(0))
        .await;
    assert_eq!(processor(&status).expect("a processor").replicas.desired, 0);
    // It was made, and never written since.
    assert_eq!(pool.deployment().await.metadata.generation, Some(1));
}

#[tokio::test]
async fn messages_under_offsets_beyond_the_end_of_a_new_topic_are_seen_flagged_and_read() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 12).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;

    // While nobody looks, as a tool does that copies offsets from another cluster.
    operator.process.kill_9().await.expect("it runs");
    make_anew(&pool, 12).await;
    pool.publish_one_each(12).await;
    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[20; 12]).await;
    committed.expect("committed");
    let _operator = OperatorProcess::start(&rig);
    let status = pool
        .until_status("flag", SOON, |status| {
            said(status, "Degraded", "True").is_some_and(|text| text.contains("made anew"))
        })
        .await;
    assert_eq!(waiting(&status), Some(12));
    pool.until_replicas(12, SOON).await;
    assert_eq!(work_off(&pool, 12).await.len(), 12);
}

#[tokio::test]
async fn offsets_that_somebody_sets_beyond_the_end_hide_nothing() {
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
        .until_status("flag", SOON, |status| {
            waiting(status) == Some(12)
                && said(status, "Degraded", "True").is_some_and(|text| text.contains("20 was committed"))
        })
        .await;
    let told = said(&status, "Degraded", "True").expect("told");
    assert!(told.contains("counted from the start"), "{told}");
    assert_eq!(work_off(&pool, 12).await.len(), 12);
}

#[tokio::test]
async fn messages_in_partitions_that_are_added_are_seen_and_none_is_skipped() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({"processor": {"autoOffsetReset": "latest"}}))
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
        .until_status("all messages", SOON, |status| waiting(status) == Some(12))
        .await;
    let processor = processor(&status).expect("a processor");
    assert_eq!(
        (processor.partitions, processor.partitions_with_work),
        (Some(8), Some(4))
    );
    pool.until_replicas(4, SOON).await;
    assert_eq!(work_off(&pool, 12).await.len(), 12);
}
