//! A rolling update to an image that cannot start, while the lag falls: no pod with a task is removed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use separation_testbed::eventually;
use serde_json::json;

use crate::members::{Member, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Workers before the update. Kubernetes replaces a quarter of them at a time.
const WORKERS: usize = 8;
const QUARTER: usize = 2;

/// Number of runs of the scenario, and how many run in parallel. One is enough for each run of the tests.
const TIMES: &str = "SEPARATION_TEST_ROLLOUTS";
const PARALLEL_REQUESTS: usize = 4;

impl PoolUnderTest<'_> {
    /// The pods that run the image.
    async fn pods_of(&self, image: &str) -> BTreeSet<String> {
        let pods = self.pods().list(&Default::default()).await.expect("pods");
        let of_image = pods.items.into_iter().filter(|pod| {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            pod.metadata.deletion_timestamp.is_none()
                && containers
                    .filter_map(|container| container.image.as_deref())
                    .any(|found| found == image)
        });
        of_image.filter_map(|pod| pod.metadata.name).collect()
    }

    async fn until_reason(&self, reason: &str) {
        self.until_status(reason, SOON, |status| {
            status
                .processor
                .as_ref()
                .is_some_and(|role| role.reason == reason)
        })
        .await;
    }
}

/// Eight workers have a task each when the image changes. Kubernetes replaces a quarter of them, which finish their
/// tasks as they drain; so do `idle` of the others. Then the update is rolled back.
async fn blocked_rollout(idle: usize) {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 8).await;
    let with_image = |image: &str| json!({"processor": {"image": image, "scaling": {"maxReplicas": 8}}});
    pool.apply(&with_image("worker:good")).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(8).await;
    pool.until_replicas(8, SOON).await;
    let names = ready_pods(&pool, WORKERS).await;
    let mut members: BTreeMap<String, Member> = names
        .iter()
        .map(|name| (name.clone(), Member::of(&pool, name, Tasks::Wait)))
        .collect();
    eventually("a partition for each", SOON, async || {
        members.values().all(|member| member.owned().len() == 1)
    })
    .await;
    members.values().for_each(|member| member.now(Tasks::Hold));
    eventually("a task for each", SOON, async || {
        members.values().all(|member| member.taken().len() == 1)
    })
    .await;

    pool.apply(&with_image("worker:cannot-start")).await;
    let staying = eventually("pods of both images", SOON, async || {
        let new = pool.pods_of("worker:cannot-start").await;
        let old = pool.pods_of("worker:good").await;
        (new.len() == QUARTER && old.len() == WORKERS - QUARTER).then_some(old)
    })
    .await;
    // Replaced workers drain: they finish their tasks and leave.
    let replaced: Vec<String> = names
        .iter()
        .filter(|name| !staying.contains(*name))
        .cloned()
        .collect();
    let (done, busy) = {
        let mut staying: Vec<&String> = staying.iter().collect();
        let busy = staying.split_off(idle);
        let busy: BTreeSet<String> = busy.into_iter().cloned().collect();
        (staying, busy)
    };
    for name in replaced.iter().chain(done) {
        members[name].now(Tasks::Commit);
    }
    let left = i64::try_from(busy.len()).expect("a few");
    eventually("committed tasks", SOON, async || {
        anyhow::Ok(pool.kafka.total_lag(&pool.group(), &pool.tasks()).await? == left)
    })
    .await;
    members.retain(|name, _| !replaced.contains(name));

    // Fewer are enough, and which pods Kubernetes would delete does not depend on the operator.
    pool.until_reason("HeldByRollout").await;
    operator.until_read_again(8.0).await;
    assert_eq!(pool.replicas().await, Some(8), "{}", operator.log());
    assert_eq!(pool.pods_of("worker:good").await, staying, "{}", operator.log());

    pool.apply(&with_image("worker:good")).await;
    pool.until_replicas(i32::try_from(busy.len()).expect("a few"), SOON)
        .await;
    eventually("the busy pods", SOON, async || {
        pool.pods_of("worker:good").await == busy
    })
    .await;
    assert_eq!(pool.pods_of("worker:cannot-start").await, BTreeSet::new());
    operator.end().await;
}

#[tokio::test]
async fn no_busy_pod_is_removed_during_a_rollout_of_an_image_that_cannot_start() {
    let times = std::env::var(TIMES).map_or(1, |times| times.parse().expect("a number"));
    // With idle workers of the old template, and without.
    let each = (0..times).map(|number| blocked_rollout(2 - number % 3));
    futures_util::stream::iter(each)
        .buffer_unordered(PARALLEL_REQUESTS)
        .collect::<()>()
        .await;
}
