//! Kafka that is unreachable, responds for some partitions only, or is rebalancing.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use separation_contract::kafka::Assignor;
use separation_operator::crd::{LagState, SeparationPoolStatus};
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::json;

use crate::adoption::{condition_message, known_lag};
use crate::members::{Member, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// The operator finds returned brokers within its longest backoff, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(45);

fn reason(status: &SeparationPoolStatus) -> &str {
    status
        .processor
        .as_ref()
        .map_or("", |processor| &processor.reason)
}

async fn until_reason(pool: &PoolUnderTest<'_>, expected: &str) -> SeparationPoolStatus {
    pool.until_status(expected, SOON, |status| reason(status) == expected)
        .await
}

async fn generation(pool: &PoolUnderTest<'_>) -> Option<i64> {
    pool.deployment().await.metadata.generation
}

#[tokio::test]
async fn while_kafka_is_unreachable_replicas_stay_and_pools_on_other_clusters_continue() {
    let unreachable = Kafka::start(KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    })
    .await
    .expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &unreachable, "unreachable", 5).await;
    let shared = Kafka::shared().await.expect("Kafka");
    let healthy = PoolUnderTest::on(&rig, shared, "healthy", 4).await;
    pool.apply(&json!({})).await;
    healthy.apply(&json!({})).await;

    // Unreachable from the start.
    unreachable.proxy(0).refuse();
    let operator = OperatorProcess::start(&rig);
    let status = until_reason(&pool, "HeldUnknownLag").await;
    // A restart would not bring Kafka back.
    for path in ["/healthz", "/readyz"] {
        let (code, text) = operator.get(path).await.expect("an answer");
        assert_eq!(code, 200, "{path}: {text}");
    }
    assert!(condition_message(&status, "LagKnown", "False").is_some());
    let message = condition_message(&status, "Ready", "False").expect("a message");
    assert!(message.contains("not initialized"), "{message}");
    assert_eq!(generation(&pool).await, Some(1));
    healthy.until_adopted().await;
    healthy.publish_one_each(1).await;
    healthy.until_replicas(1, SOON).await;
    assert_eq!(pool.replicas().await, Some(0));

    pool.publish_one_each(3).await;
    unreachable.proxy(0).forward();
    pool.until_replicas(3, RECOVERY).await;
    let before = generation(&pool).await;

    // Connections refused, while all messages are committed; no response, while more arrive.
    unreachable.proxy(0).refuse();
    unreachable
        .commit(&pool.group(), &pool.tasks(), &[1, 1, 1, 0, 0])
        .await
        .expect("committed");
    until_reason(&pool, "HeldUnknownLag").await;
    healthy.publish_one_each(2).await;
    healthy.until_replicas(2, SOON).await;
    unreachable.proxy(0).stall();
    pool.publish_one_each(5).await;
    healthy.publish_one_each(4).await;
    healthy.until_replicas(4, SOON).await;
    let status = until_reason(&pool, "HeldUnknownLag").await;
    // It stays ready while lag is unknown for less than five minutes.
    assert!(
        condition_message(&status, "Ready", "True").is_some(),
        "{status:?}"
    );
    let processor = status.processor.expect("a processor");
    let lag = processor.lag.expect("lag");
    assert_eq!((lag.state, lag.messages), (LagState::Unknown, None));
    assert!(lag.last_known_time.is_some());
    assert_eq!(generation(&pool).await, before);

    unreachable.proxy(0).forward();
    pool.until_replicas(5, RECOVERY).await;
    // From three to five in one write.
    assert_eq!(generation(&pool).await, before.map(|before| before + 1));
    unreachable
        .commit(&pool.group(), &pool.tasks(), &[2, 2, 2, 1, 1])
        .await
        .expect("committed");
    pool.until_replicas(0, SOON).await;
}

/// The partition of __consumer_offsets, of three, that a group belongs to.
fn partition_of_group(group: &str) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, letter| {
        hash.wrapping_mul(31).wrapping_add(i32::from(letter))
    });
    hash.checked_abs().unwrap_or(0) % 3
}

#[tokio::test]
async fn partial_lag_never_lowers_replicas() {
    let kafka = Kafka::start(KafkaOptions {
        brokers: 3,
        proxied: true,
        ..KafkaOptions::default()
    })
    .await
    .expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &kafka, "vocals", 6).await;
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(5).await;
    pool.until_replicas(5, RECOVERY).await;
    let before = generation(&pool).await;

    let coordinator = kafka
        .leader("__consumer_offsets", partition_of_group(&pool.group()))
        .await
        .expect("an answer");
    // A broker that leads some of the partitions and is not the group's coordinator.
    let stalled = (0..3).find(|broker| Some(*broker) != coordinator).expect("one");
    let mut of_stalled = Vec::new();
    for partition in 0..6 {
        if kafka.leader(&pool.tasks(), partition).await.expect("an answer") == Some(stalled) {
            of_stalled.push(partition);
        }
    }
    assert!(!of_stalled.is_empty());
    kafka.proxy(stalled).stall();
    kafka
        .commit(&pool.group(), &pool.tasks(), &[1, 1, 1, 1, 1, 0])
        .await
        .expect("committed");
    let status = until_reason(&pool, "HeldPartialLag").await;
    let message = condition_message(&status, "LagKnown", "False").expect("a message");
    assert!(
        message.contains(&format!("{} partitions could not be read", of_stalled.len())),
        "{message}"
    );
    // All messages that can be read are committed, for longer than the stabilization.
    pool.until_status("partial lag without messages", SOON, |status| {
        known_lag(status) == Some(0) && reason(status) == "HeldPartialLag"
    })
    .await;
    // Scale-up still works meanwhile.
    let readable = (0..6).filter(|partition| !of_stalled.contains(partition));
    for partition in readable {
        for _ in 0..2 {
            pool.publish(partition, "{}").await;
        }
    }
    pool.until_status("partial lag with messages", SOON, |status| {
        known_lag(status).is_some_and(|messages| messages >= 8) && reason(status) == "HeldPartialLag"
    })
    .await;
    assert_eq!(generation(&pool).await, before);

    kafka.proxy(stalled).forward();
    let readable = 6 - i32::try_from(of_stalled.len()).expect("a few");
    pool.until_replicas(readable, RECOVERY).await;
}

#[tokio::test]
async fn an_unstable_group_delays_a_scale_up_for_a_limited_time() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({"processor": {"consumer": {"heartbeatIntervalMs": 1000}}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(1).await;
    pool.until_replicas(1, SOON).await;
    let pods = ready_pods(&pool, 1).await;

    // A member that does not release its partitions when another one joins: it is not polled any more.
    let stubborn: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pool.kafka.bootstrap())
        .set("group.id", pool.group())
        .set("client.id", &pods[0])
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", "45000")
        .set("heartbeat.interval.ms", "500")
        .set("max.poll.interval.ms", "60000")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    stubborn.subscribe(&[&pool.tasks()]).expect("subscribed");
    eventually("a member", SOON, async || {
        let _ = stubborn.poll(Duration::ZERO);
        stubborn.assignment().is_ok_and(|assigned| assigned.count() == 4)
    })
    .await;
    let other = format!("{}-other", pool.deployment_name());
    let _other = Member::with(&pool, &other, Tasks::Wait, Assignor::Range);
    eventually("a group that is rebalancing", SOON, async || {
        let group = pool.kafka.group(&pool.group()).await?;
        anyhow::Ok(group.state == "PreparingRebalance")
    })
    .await;
    pool.publish_one_each(4).await;
    let status = until_reason(&pool, "Rebalancing").await;
    assert_eq!(status.processor.expect("a processor").replicas.desired, 1);
    // Two heartbeats and five seconds.
    pool.until_replicas(4, SOON).await;
    let group = pool.kafka.group(&pool.group()).await.expect("an answer");
    assert_eq!(group.state, "PreparingRebalance");
}
