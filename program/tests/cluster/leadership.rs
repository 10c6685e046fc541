//! Operator processes that share a lease: only one writes, whatever happens to the others.

use std::time::{Duration, Instant};

use separation_testbed::eventually;
use serde_json::json;

use crate::manifests::{second_account, user, user_named, writes_of};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest, SHORT_LEASE};

/// From a leader's crash to its standby's first write, with the default lease.
const TAKEOVER: Duration = Duration::from_secs(20);

/// From SIGTERM to the standby's first write.
const RELEASE: Duration = Duration::from_secs(5);

/// Two operators, each with its own account; the first one leads.
struct Pair<'a> {
    rig: &'a Rig,
    first: OperatorProcess,
    second: OperatorProcess,
}

impl<'a> Pair<'a> {
    async fn start(rig: &'a Rig, arguments: &[&str]) -> Self {
        let second = second_account(rig, "second").await;
        let start = |token: &str| OperatorProcess::start_as(rig.plane, token, &rig.namespace, arguments);
        let first = start(&rig.operator_token);
        first.until_it_leads().await;
        let second = start(&second);
        eventually("ready standby", SOON, async || {
            anyhow::Ok(second.get("/readyz").await?.0 == 200)
        })
        .await;
        Self { rig, first, second }
    }

    /// Number of writes of each.
    fn writes(&self) -> (usize, usize) {
        let namespace = &self.rig.namespace;
        (
            writes_of(self.rig, &user(namespace)).len(),
            writes_of(self.rig, &user_named(namespace, "second")).len(),
        )
    }

    /// The time until the second one has written something.
    async fn until_the_second_writes(&self, within: Duration) -> Duration {
        let start = Instant::now();
        eventually("write of the second one", within, async || self.writes().1 > 0).await;
        start.elapsed()
    }
}

#[tokio::test]
async fn only_the_leader_writes_and_a_standby_leads_within_20_s_of_its_death() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    let pair = Pair::start(&rig, &[]).await;
    pool.apply(&json!({})).await;
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    assert!(!pair.second.leads());
    assert_eq!(pair.writes().1, 0);
    pair.first.process.kill_9().await.expect("it runs");
    let firsts = pair.writes().0;
    pool.publish_one_each(4).await;
    let took = pair.until_the_second_writes(TAKEOVER).await;
    assert!(took <= TAKEOVER, "{took:?}");
    pool.until_replicas(4, SOON).await;
    assert_eq!(pair.writes().0, firsts);
    pair.second.end().await;
}

#[tokio::test]
async fn two_operators_that_race_for_the_lease_never_both_write() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.apply(&json!({})).await;
    let second = second_account(&rig, "second").await;
    let start = |token: &str| OperatorProcess::start_as(rig.plane, token, &rig.namespace, &SHORT_LEASE);
    let operators = [start(&rig.operator_token), start(&second)];
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    let wrote = [user(&rig.namespace), user_named(&rig.namespace, "second")]
        .map(|user| !writes_of(&rig, &user).is_empty());
    let lead = [operators[0].leads(), operators[1].leads()];
    assert!(
        wrote == lead && wrote[0] != wrote[1],
        "{wrote:?} wrote, {lead:?} lead"
    );
}

#[tokio::test]
async fn on_sigterm_the_leader_releases_the_lease_immediately() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let pair = Pair::start(&rig, &[]).await;
    pool.apply(&json!({})).await;
    pool.until_adopted().await;
    let start = Instant::now();
    pair.first.process.sigterm().expect("it runs");
    pool.publish_one_each(2).await;
    pair.until_the_second_writes(RELEASE).await;
    assert!(start.elapsed() <= RELEASE, "{:?}", start.elapsed());
    let code = pair.first.process.wait_exit(SOON).await.expect("it ends");
    assert_eq!(code, 0);
    pool.until_replicas(2, SOON).await;
    pair.second.end().await;
}

#[tokio::test]
async fn a_leader_frozen_beyond_its_lease_writes_nothing_when_it_resumes() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 6).await;
    let pair = Pair::start(&rig, &SHORT_LEASE).await;
    pool.apply(&json!({})).await;
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    pair.first.process.sigstop().expect("it runs");
    let firsts = pair.writes().0;
    pool.publish_one_each(6).await;
    pair.until_the_second_writes(TAKEOVER).await;
    pool.until_replicas(6, SOON).await;
    // Meanwhile everything changed: it has many reasons to write.
    pool.apply(&json!({"processor": {"taskDeadlineSeconds": 333}}))
        .await;
    pair.first.process.sigcont().expect("it is there");
    eventually("end of leading", SOON, async || !pair.first.leads()).await;
    pair.second.until_read_again(6.0).await;
    assert_eq!(pair.writes().0, firsts, "{}", pair.first.log());
    // It stands by from then on.
    pair.second.process.kill_9().await.expect("it runs");
    pair.first.until_it_leads().await;
    assert_eq!(pool.replicas().await, Some(6));
    pair.first.end().await;
}
