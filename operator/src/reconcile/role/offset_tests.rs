//! Next steps for a role with scripted committed offsets.

use separation_kafka::{Commit, TopicIdentity};

use super::*;
use crate::plan::{PoolPlan, Role};
use crate::reconcile::group_offsets::tests::{identity, members, plan, polled, status};

const RECOMMIT_AFTER: Duration = Duration::from_secs(3_600);

/// An existing Deployment with another template than the pool's.
fn deployment(replicas: u32, servers: &str) -> DeploymentSnapshot {
    let environment = serde_json::json!([{"name": "KAFKA_BOOTSTRAP_SERVERS", "value": servers}]);
    let containers = serde_json::json!([{"name": "worker", "env": environment}]);
    let deployment = serde_json::json!({
        "metadata": {"name": "vocals-processor"},
        "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": containers}}},
    });
    DeploymentSnapshot::from_deployment(&serde_json::from_value(deployment).unwrap())
}

fn workload(replicas: u32) -> Workload {
    Workload {
        replicas,
        ..Workload::default()
    }
}

/// A role, read every second from a topic with 8 messages in each of two partitions.
struct OffsetFixture {
    plan: PoolPlan,
    state: RoleState,
    written: Option<OffsetsStatus>,
    now: Moment,
}

impl OffsetFixture {
    fn new(plan: PoolPlan, written: Option<OffsetsStatus>) -> Self {
        Self {
            plan,
            state: RoleState::new(written.as_ref(), Moment::default()),
            written,
            now: Moment::from_millis(1),
        }
    }

    fn read(&mut self, cluster: &str, committed: &[Option<i64>], count: usize) {
        self.read_identity(identity(cluster, "topic"), committed, count);
    }

    /// Reads another topic of the cluster, and no members.
    fn read_topic(&mut self, id: &str, committed: &[Option<i64>]) {
        self.read_identity(identity("one", id), committed, 0);
    }

    fn read_identity(&mut self, topic: TopicIdentity, committed: &[Option<i64>], count: usize) {
        self.now = self.now + Duration::from_secs(1);
        let plan = self.plan.role(Role::Processor);
        let group = members(count, self.now);
        let polled = polled(&self.state.offsets, plan, topic, committed, group, self.now);
        let time = Time(jiff::Timestamp::UNIX_EPOCH);
        self.state.read(polled, plan, &time);
    }

    fn next(&mut self, deployment: &DeploymentSnapshot) -> Option<Step> {
        let plan = self.plan.role(Role::Processor);
        let key = RoleKey {
            pool: Arc::new(self.plan.id.clone()),
            role: Role::Processor,
        };
        let inputs = RoleInputs {
            plan,
            servers: &self.plan.kafka.bootstrap_servers,
            deployment: Some(deployment),
            manifest_hash: "new",
            pool_uid: "pool",
            worker_ids: &WorkerIds::new(&key, "pool"),
            conflict: None,
            written_adoption: self.written.as_ref(),
            recommit_after: RECOMMIT_AFTER,
        };
        self.state.next(inputs, workload(deployment.replicas), self.now)
    }
}

#[test]
fn no_pod_of_a_new_template_starts_before_offsets_are_initialized() {
    // The pool was deleted and recreated; its old Deployment, of another group, still exists.
    let mut fixture = OffsetFixture::new(plan(""), None);
    let old = deployment(4, "k:1");
    assert_eq!(fixture.next(&old), None);
    for _ in 0..6 {
        fixture.read("one", &[None, None], 0);
    }
    let adopt = match fixture.next(&old) {
        Some(Step::Adopt(adopt)) => adopt,
        step => panic!("{step:?}"),
    };
    assert_eq!(adopt.commits.len(), 2, "`latest` skips what is there");
    fixture.state.step_succeeded(fixture.now);
    fixture.state.adopted(status("one", "topic", &[]), fixture.now);
    fixture.read("one", &[Some(10), Some(10)], 0);
    assert_eq!(
        fixture.next(&old),
        None,
        "the status does not have the adoption yet"
    );
    fixture.written = Some(status("one", "topic", &[]));
    assert!(matches!(fixture.next(&old), Some(Step::Write(_))));
}

#[test]
fn a_template_with_other_brokers_waits_until_offsets_are_initialized_there() {
    let mut fixture = OffsetFixture::new(plan(""), Some(status("one", "topic", &[])));
    let old = deployment(2, "before:1");
    assert_eq!(fixture.next(&old), None, "they may be another cluster");
    fixture.read("two", &[None, None], 0);
    assert_eq!(fixture.next(&old), None);
    for _ in 0..6 {
        fixture.read("two", &[None, None], 0);
    }
    assert!(matches!(fixture.next(&old), Some(Step::Adopt(_))));

    // The same cluster by other addresses.
    let mut fixture = OffsetFixture::new(plan(""), Some(status("one", "topic", &[])));
    fixture.read("one", &[Some(3), Some(3)], 2);
    assert!(matches!(fixture.next(&old), Some(Step::Write(_))));
    // Other settings need no reading.
    let mut fixture = OffsetFixture::new(plan(""), Some(status("one", "topic", &[])));
    assert_eq!(
        fixture.next(&deployment(2, "k:1")),
        Some(Step::Write(Write::SetReplicas(2)))
    );
}

#[test]
fn recorded_offsets_are_committed_before_the_first_worker_starts() {
    let written = Some(status("one", "topic", &[9, 9]));
    let mut fixture = OffsetFixture::new(plan(""), written);
    let mut snapshot = deployment(0, "k:1");
    (snapshot.manifest_hash, snapshot.owner) = (Some("new".into()), Some("pool".into()));
    fixture.read("one", &[None, None], 0);
    assert_eq!(
        fixture.next(&snapshot),
        None,
        "two messages are queued, and no worker may start"
    );
    for _ in 0..6 {
        fixture.read("one", &[None, None], 0);
    }
    assert!(matches!(fixture.next(&snapshot), Some(Step::Restore(_))));
    fixture.state.step_succeeded(fixture.now);
    fixture.state.restored(fixture.now);
    fixture.read("one", &[Some(9), Some(9)], 0);
    assert_eq!(fixture.next(&snapshot), Some(Step::Write(Write::SetReplicas(2))));
}

#[test]
fn offsets_of_a_recreated_topic_without_an_id_are_replaced_before_the_first_worker_starts() {
    let mut fixture = OffsetFixture::new(plan(""), Some(status("one", "", &[])));
    let mut snapshot = deployment(0, "k:1");
    (snapshot.manifest_hash, snapshot.owner) = (Some("new".into()), Some("pool".into()));
    for _ in 0..5 {
        fixture.read_topic("", &[Some(20), Some(10)]);
        assert_eq!(fixture.next(&snapshot), None, "eight messages are queued");
    }
    fixture.read_topic("", &[Some(20), Some(10)]);
    assert_eq!(
        fixture.next(&snapshot),
        Some(Step::Replace(vec![Commit::new(0, 2)]))
    );
    fixture.state.step_succeeded(fixture.now);
    fixture.state.restored(fixture.now);
    fixture.read_topic("", &[Some(2), Some(10)]);
    assert_eq!(fixture.next(&snapshot), Some(Step::Write(Write::SetReplicas(1))));
}

#[test]
fn offsets_of_a_disabled_role_are_committed_again() {
    let mut fixture = OffsetFixture::new(plan("enabled: false"), Some(status("one", "topic", &[])));
    let role_plan = fixture.plan.role(Role::Processor).clone();
    let next = |fixture: &mut OffsetFixture, replicas| {
        let step = fixture
            .state
            .disable(&role_plan, &workload(replicas), RECOMMIT_AFTER, fixture.now);
        if step.is_some() {
            fixture.state.step_succeeded(fixture.now);
        }
        step
    };
    assert_eq!(next(&mut fixture, 2), Some(Step::Write(Write::SetReplicas(0))));
    fixture.now = fixture.now + RECOMMIT_AFTER;
    fixture.read("one", &[Some(3), Some(4)], 0);
    assert_eq!(next(&mut fixture, 0), Some(Step::Recommit(vec![0, 1])));
    assert_eq!(fixture.state.adoption().unwrap().committed, [3, 4]);
    let query = fixture
        .state
        .role_query(&role_plan, &workload(0), RECOMMIT_AFTER, fixture.now);
    assert_eq!(query.interval, DISABLED_POLL_INTERVAL);
}
