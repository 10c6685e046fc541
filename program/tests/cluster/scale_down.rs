//! Which pods a scale-down removes, and other members of the group.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use separation_contract::kafka::Assignor;
use separation_testbed::eventually;
use serde_json::json;

use crate::adoption::{condition_message, known_lag};
use crate::members::{Member, Tasks, busy_members, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Scale-down candidates: pods with our deletion cost.
async fn annotated_pods(pool: &PoolUnderTest<'_>) -> BTreeSet<String> {
    let pods = pool.pods().list(&Default::default()).await.expect("pods");
    let annotated = pods.items.into_iter().filter(|pod| {
        let annotations = pod.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(DELETION_COST))
    });
    annotated.filter_map(|pod| pod.metadata.name).collect()
}

/// Event between the annotation and the scale-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LateEvent {
    /// Nothing.
    Nothing,
    /// An annotated pod gets a task.
    Task,
}

/// Some of several pods have tasks left, and perhaps one gets a task after it was annotated: they stay, and the others
/// are removed in one write. All variation follows from `seed`.
async fn scale_down(seed: u64, late: LateEvent) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pods = random.usize(3..=6);
    let busy = random.usize(1..pods - 1);
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, i32::try_from(pods).expect("a few")).await;
    pool.apply(&json!({"processor": {"scaling": {"lagCheckPeriodSeconds": 2}}}))
        .await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(i32::try_from(pods).expect("a few")).await;
    pool.until_replicas(i32::try_from(pods).expect("a few"), SOON)
        .await;
    let mut names = ready_pods(&pool, pods).await;
    random.shuffle(&mut names);
    let mut members = busy_members(&pool, &names, 1).await;
    let before = pool.deployment().await.metadata.generation;

    let (busy, idle) = names.split_at(busy);
    for name in idle {
        members[name.as_str()].now(Tasks::Commit);
    }
    let mut remaining: BTreeSet<&str> = busy.iter().map(String::as_str).collect();
    let expected: BTreeSet<String> = idle.iter().cloned().collect();
    eventually("deletion costs on idle pods", SOON, async || {
        let annotated = annotated_pods(&pool).await;
        // A pod whose commit came late is annotated one reading later.
        assert!(
            annotated.is_subset(&expected),
            "{annotated:?} are annotated, {expected:?} are idle"
        );
        annotated == expected
    })
    .await;
    if late == LateEvent::Task {
        let annotated = &members[idle[0].as_str()];
        annotated.now(Tasks::Hold);
        pool.publish(annotated.owned()[0], "{}").await;
        remaining.insert(&idle[0]);
    }
    let replicas = i32::try_from(remaining.len()).expect("a few");
    pool.until_replicas(replicas, SOON).await;
    let left = eventually("pods that are left", SOON, async || {
        let left = pool.pod_names().await;
        (left.len() == remaining.len()).then_some(left)
    })
    .await;
    let left: BTreeSet<&str> = left.iter().map(String::as_str).collect();
    assert_eq!(left, remaining, "seed {seed}: {}", operator.log());
    // The workers of removed pods have ended.
    members.retain(|name, _| remaining.contains(name));
    let after = pool.deployment().await.metadata.generation;
    assert_eq!(after, before.map(|before| before + 1), "seed {seed}: one write");
    assert_eq!(annotated_pods(&pool).await, BTreeSet::new(), "seed {seed}");

    // The other pods are removed once their tasks are done, and no message was lost.
    drop(operator);
    for name in &remaining {
        members[name].now(Tasks::Commit);
    }
    let _operator = OperatorProcess::start(&rig);
    pool.until_replicas(0, SOON + SOON).await;
    assert_eq!(
        pool.kafka
            .total_lag(&pool.group(), &pool.tasks())
            .await
            .expect("an answer"),
        0
    );
}

#[tokio::test]
async fn busy_pods_stay_and_idle_pods_are_removed_in_one_write() {
    scale_down(1, LateEvent::Nothing).await;
}

#[tokio::test]
async fn an_annotated_pod_that_gets_a_task_stays() {
    scale_down(2, LateEvent::Task).await;
}

/// Scale-downs of the long test, and how many of them run in parallel.
const SCALE_DOWNS: u64 = 100;
const PARALLEL_SCALE_DOWNS: usize = 6;

#[tokio::test]
#[ignore = "takes many minutes: for measurements"]
async fn a_hundred_scale_downs_remove_no_busy_pod() {
    let each = (0..SCALE_DOWNS).map(|seed| {
        let late = if seed % 2 == 0 {
            LateEvent::Task
        } else {
            LateEvent::Nothing
        };
        scale_down(seed, late)
    });
    futures_util::stream::iter(each)
        .buffer_unordered(PARALLEL_SCALE_DOWNS)
        .collect::<()>()
        .await;
}

#[tokio::test]
async fn foreign_members_are_a_conflict_and_replicas_stay_until_they_leave() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    drop(operator);

    // While no workers run, members are read only occasionally.
    let foreign = Member::of(&pool, "another-client", Tasks::Wait);
    eventually("a member", SOON, async || foreign.owned().len() == 4).await;
    let _operator = OperatorProcess::start(&rig);
    let in_conflict = |status: &_| condition_message(status, "GroupConflict", "True").is_some();
    let status = pool.until_status("conflict", SOON, in_conflict).await;
    let message = condition_message(&status, "GroupConflict", "True").expect("a message");
    assert!(
        message.contains("(client ids \"another-client\")") && message.contains("fix: stop them"),
        "{message}"
    );
    pool.publish_one_each(3).await;
    let status = pool
        .until_status("three messages", SOON, |status| known_lag(status) == Some(3))
        .await;
    assert!(in_conflict(&status), "{status:?}");
    pool.publish_one_each(4).await;
    let status = pool
        .until_status("seven messages", SOON, |status| known_lag(status) == Some(7))
        .await;
    assert!(in_conflict(&status), "{status:?}");
    assert_eq!(pool.deployment().await.metadata.generation, Some(1));

    drop(foreign);
    pool.until_replicas(4, SOON).await;
    pool.until_status("end of the conflict", SOON, |status| {
        condition_message(status, "GroupConflict", "False").is_some()
    })
    .await;
    // While workers of the pool run, members are read each time.
    let foreign = Member::of(&pool, "another-client", Tasks::Commit);
    pool.until_status("conflict", SOON, in_conflict).await;
    eventually("messages that another client consumed", SOON, async || {
        foreign.taken().len() == 7
    })
    .await;
    pool.until_status("lag of 0", SOON, |status| known_lag(status) == Some(0))
        .await;
    assert_eq!(pool.replicas().await, Some(4));
    drop(foreign);
    pool.until_replicas(0, SOON).await;
}

#[tokio::test]
async fn with_the_range_assignor_other_consumers_may_share_the_group() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({"processor": {"consumer": {"assignor": "Range"}}}))
        .await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    let other = Member::with(&pool, "another-client", Tasks::Wait, Assignor::Range);
    eventually("a member", SOON, async || other.owned().len() == 4).await;
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    let pods = ready_pods(&pool, 3).await;
    let mut ours: BTreeMap<&String, Member> = pods
        .iter()
        .map(|pod| (pod, Member::with(&pool, pod, Tasks::Commit, Assignor::Range)))
        .collect();
    eventually("a partition for each", SOON, async || {
        ours.values()
            .chain([&other])
            .all(|member| member.owned().len() == 1)
    })
    .await;
    other.now(Tasks::Commit);
    let status = pool
        .until_status("lag of 0", SOON, |status| known_lag(status) == Some(0))
        .await;
    assert!(
        condition_message(&status, "GroupConflict", "False").is_some(),
        "{status:?}"
    );
    eventually("no replicas", SOON, async || {
        // A worker ends with its pod.
        let pods = pool.pod_names().await;
        ours.retain(|pod, _| pods.contains(pod));
        pool.replicas().await == Some(0)
    })
    .await;
}
