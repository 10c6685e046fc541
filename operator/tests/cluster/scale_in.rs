//! Who goes when fewer would do, and who else is in the group.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use separation_contract::kafka::Assignor;
use separation_testbed::eventually;
use serde_json::json;

use crate::adoption::{said, waiting};
use crate::members::{Member, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Pods that carry the mark of those that go first.
async fn marked(pool: &PoolUnderTest<'_>) -> BTreeSet<String> {
    let pods = pool.pods().list(&Default::default()).await.expect("pods");
    let marked = pods.items.into_iter().filter(|pod| {
        let annotations = pod.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(DELETION_COST))
    });
    marked.filter_map(|pod| pod.metadata.name).collect()
}

/// What may happen between the mark and the scale-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// Nothing.
    Nothing,
    /// A marked pod is given a task.
    Task,
}

/// Some pods of several have tasks left, and perhaps one gets a task after it was marked: those stay, and the others go in
/// one write. Everything that may differ follows from `seed`.
async fn hand_over(seed: u64, late: Late) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pods = random.usize(3..=6);
    let busy = random.usize(1..pods - 1);
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, i32::try_from(pods).expect("a few")).await;
    pool.apply(&json!({"processor": {"scaling": {"pollIntervalSeconds": 2.0}}}))
        .await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(i32::try_from(pods).expect("a few")).await;
    pool.until_replicas(i32::try_from(pods).expect("a few"), SOON)
        .await;
    let mut names = ready_pods(&pool, pods).await;
    random.shuffle(&mut names);
    let mut members: BTreeMap<&str, Member> = names
        .iter()
        .map(|name| (name.as_str(), Member::of(&pool, name, Tasks::Wait)))
        .collect();
    eventually("a partition for each", SOON, async || {
        members.values().all(|member| member.owned().len() == 1)
    })
    .await;
    for member in members.values() {
        member.now(Tasks::Hold);
    }
    eventually("a task for each", SOON, async || {
        members.values().all(|member| member.taken().len() == 1)
    })
    .await;
    let before = pool.deployment().await.metadata.generation;

    let (busy, idle) = names.split_at(busy);
    for name in idle {
        members[name.as_str()].now(Tasks::Commit);
    }
    let mut staying: BTreeSet<&str> = busy.iter().map(String::as_str).collect();
    let expected: BTreeSet<String> = idle.iter().cloned().collect();
    eventually("marks on idle pods", SOON, async || {
        let marked = marked(&pool).await;
        // One whose commit came late is marked a reading later.
        assert!(
            marked.is_subset(&expected),
            "{marked:?} are marked, idle are {expected:?}"
        );
        marked == expected
    })
    .await;
    if late == Late::Task {
        let kept = &members[idle[0].as_str()];
        kept.now(Tasks::Hold);
        pool.publish(kept.owned()[0], "{}").await;
        staying.insert(&idle[0]);
    }
    let replicas = i32::try_from(staying.len()).expect("a few");
    pool.until_replicas(replicas, SOON).await;
    let left = eventually("pods that are left", SOON, async || {
        let left = pool.pod_names().await;
        (left.len() == staying.len()).then_some(left)
    })
    .await;
    let left: BTreeSet<&str> = left.iter().map(String::as_str).collect();
    assert_eq!(left, staying, "seed {seed}: {}", operator.log());
    // The workers of pods that are gone have ended.
    members.retain(|name, _| staying.contains(name));
    let after = pool.deployment().await.metadata.generation;
    assert_eq!(after, before.map(|before| before + 1), "seed {seed}: one write");
    assert_eq!(marked(&pool).await, BTreeSet::new(), "seed {seed}");

    // The rest goes once it is done, and nothing was lost on the way.
    drop(operator);
    for name in &staying {
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
async fn pods_with_tasks_stay_and_idle_ones_go_in_one_write() {
    hand_over(1, Late::Nothing).await;
}

#[tokio::test]
async fn a_pod_that_takes_a_task_after_it_was_marked_stays() {
    hand_over(2, Late::Task).await;
}

/// Hand-overs of the long test, and how many of them run at once.
const HAND_OVERS: u64 = 100;
const HAND_OVERS_AT_ONCE: usize = 6;

#[tokio::test]
#[ignore = "takes many minutes: whoever measures the operator runs it"]
async fn of_a_hundred_hand_overs_none_takes_a_pod_with_a_task() {
    let each = (0..HAND_OVERS).map(|seed| {
        let late = if seed % 2 == 0 { Late::Task } else { Late::Nothing };
        hand_over(seed, late)
    });
    futures_util::stream::iter(each)
        .buffer_unordered(HAND_OVERS_AT_ONCE)
        .collect::<()>()
        .await;
}

#[tokio::test]
async fn foreign_members_are_a_conflict_and_nothing_is_done_until_they_leave() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    drop(operator);

    // While nothing runs, members are asked for only now and then.
    let foreign = Member::of(&pool, "somebody", Tasks::Wait);
    eventually("a member", SOON, async || foreign.owned().len() == 4).await;
    let _operator = OperatorProcess::start(&rig);
    let in_conflict = |status: &_| said(status, "Conflict", "True").is_some();
    let status = pool.until_status("conflict", SOON, in_conflict).await;
    let told = said(&status, "Conflict", "True").expect("told");
    assert!(
        told.contains("(client ids \"somebody\")") && told.contains("fix: stop them"),
        "{told}"
    );
    pool.publish_one_each(3).await;
    let status = pool
        .until_status("three messages", SOON, |status| waiting(status) == Some(3))
        .await;
    assert!(in_conflict(&status), "{status:?}");
    pool.publish_one_each(4).await;
    let status = pool
        .until_status("seven messages", SOON, |status| waiting(status) == Some(7))
        .await;
    assert!(in_conflict(&status), "{status:?}");
    assert_eq!(pool.deployment().await.metadata.generation, Some(1));

    drop(foreign);
    pool.until_replicas(4, SOON).await;
    pool.until_status("peace", SOON, |status| {
        said(status, "Conflict", "False").is_some()
    })
    .await;
    // Where workers of the pool run, they are asked for each time.
    let foreign = Member::of(&pool, "somebody", Tasks::Commit);
    pool.until_status("conflict", SOON, in_conflict).await;
    eventually("messages that somebody else took", SOON, async || {
        foreign.taken().len() == 7
    })
    .await;
    pool.until_status("nothing that waits", SOON, |status| waiting(status) == Some(0))
        .await;
    assert_eq!(pool.replicas().await, Some(4));
    drop(foreign);
    pool.until_replicas(0, SOON).await;
}

#[tokio::test]
async fn with_the_range_assignor_workers_of_another_make_are_welcome() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({"processor": {"assignor": "range"}})).await;
    let _operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    let other = Member::with(&pool, "somebody", Tasks::Wait, Assignor::Range);
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
        .until_status("nothing that waits", SOON, |status| waiting(status) == Some(0))
        .await;
    assert!(said(&status, "Conflict", "False").is_some(), "{status:?}");
    eventually("no replicas", SOON, async || {
        // A worker ends with its pod.
        let pods = pool.pod_names().await;
        ours.retain(|pod, _| pods.contains(pod));
        pool.replicas().await == Some(0)
    })
    .await;
}
