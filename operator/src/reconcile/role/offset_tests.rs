//! What is done next for a role whose committed offsets follow a script.

use super::*;
use crate::plan::{PoolPlan, Role};
use crate::reconcile::group_offsets::tests::{identity, members, plan, polled, status};

const KEEP_AFTER: Duration = Duration::from_secs(3_600);

/// A Deployment as it stands, of another template than the pool's.
fn deployment(replicas: u32, servers: &str) -> DeploymentSeen {
    let environment = serde_json::json!([{"name": "KAFKA_BOOTSTRAP_SERVERS", "value": servers}]);
    let containers = serde_json::json!([{"name": "worker", "env": environment}]);
    let deployment = serde_json::json!({
        "metadata": {"name": "vocals-processor"},
        "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": containers}}},
    });
    DeploymentSeen::of(&serde_json::from_value(deployment).unwrap())
}

fn workload(replicas: u32) -> Workload {
    Workload {
        replicas,
        ..Workload::default()
    }
}

/// A role, read every second from a topic with 8 messages in each of two partitions.
struct Scene {
    plan: PoolPlan,
    state: RoleState,
    written: Option<AdoptionStatus>,
    now: Moment,
}

impl Scene {
    fn new(plan: PoolPlan, written: Option<AdoptionStatus>) -> Self {
        Self {
            plan,
            state: RoleState::new(written.as_ref(), Moment::default()),
            written,
            now: Moment::from_millis(1),
        }
    }

    fn read(&mut self, cluster: &str, committed: &[Option<i64>], count: usize) {
        self.now = self.now + Duration::from_secs(1);
        let plan = self.plan.role(Role::Processor);
        let topic = identity(cluster, "topic");
        let group = members(count, self.now);
        let polled = polled(&self.state.offsets, plan, topic, committed, group, self.now);
        let time = Time(jiff::Timestamp::UNIX_EPOCH);
        self.state.read(polled, plan, &time);
    }

    fn next(&mut self, deployment: &DeploymentSeen) -> Option<Step> {
        let plan = self.plan.role(Role::Processor);
        let key = RoleKey {
            pool: Arc::new(self.plan.id.clone()),
            role: Role::Processor,
        };
        let around = Surroundings {
            plan,
            servers: &self.plan.kafka.bootstrap_servers,
            deployment: Some(deployment),
            manifest_hash: "new",
            pool_uid: "pool",
            worker_ids: &WorkerIds::new(&key, "pool"),
            written_adoption: self.written.as_ref(),
            keep_after: KEEP_AFTER,
        };
        self.state
            .next(around, workload(deployment.replicas), None, self.now)
    }
}

#[test]
fn no_pod_of_a_new_template_starts_before_offsets_are_initialized() {
    // The pool was deleted and created again; its old Deployment, of another group, has not gone yet.
    let mut scene = Scene::new(plan(""), None);
    let old = deployment(4, "k:1");
    assert_eq!(scene.next(&old), None);
    for _ in 0..6 {
        scene.read("one", &[None, None], 0);
    }
    let adopt = match scene.next(&old) {
        Some(Step::Adopt(adopt)) => adopt,
        step => panic!("{step:?}"),
    };
    assert_eq!(adopt.commits.len(), 2, "`latest` skips what is there");
    scene.state.done(scene.now);
    scene.state.adopted(status("one", "topic", &[]), scene.now);
    scene.read("one", &[Some(10), Some(10)], 0);
    assert_eq!(scene.next(&old), None, "the status does not say so yet");
    scene.written = Some(status("one", "topic", &[]));
    assert!(matches!(scene.next(&old), Some(Step::Deploy { .. })));
}

#[test]
fn a_template_with_other_brokers_waits_until_offsets_are_initialized_there() {
    let mut scene = Scene::new(plan(""), Some(status("one", "topic", &[])));
    let old = deployment(2, "before:1");
    assert_eq!(scene.next(&old), None, "they may be another cluster");
    scene.read("two", &[None, None], 0);
    assert_eq!(scene.next(&old), None);
    for _ in 0..6 {
        scene.read("two", &[None, None], 0);
    }
    assert!(matches!(scene.next(&old), Some(Step::Adopt(_))));

    // The same cluster by other addresses.
    let mut scene = Scene::new(plan(""), Some(status("one", "topic", &[])));
    scene.read("one", &[Some(3), Some(3)], 2);
    assert!(matches!(scene.next(&old), Some(Step::Deploy { .. })));
    // Other settings need no reading.
    let mut scene = Scene::new(plan(""), Some(status("one", "topic", &[])));
    assert_eq!(
        scene.next(&deployment(2, "k:1")),
        Some(Step::Deploy { replicas: 2 })
    );
}

#[test]
fn remembered_offsets_are_committed_before_the_first_worker_starts() {
    let written = Some(status("one", "topic", &[9, 9]));
    let mut scene = Scene::new(plan(""), written);
    let mut seen = deployment(0, "k:1");
    (seen.manifest_hash, seen.owner) = (Some("new".into()), Some("pool".into()));
    scene.read("one", &[None, None], 0);
    assert_eq!(
        scene.next(&seen),
        None,
        "two messages wait, and no worker may start"
    );
    for _ in 0..6 {
        scene.read("one", &[None, None], 0);
    }
    assert!(matches!(scene.next(&seen), Some(Step::Restore(_))));
    scene.state.done(scene.now);
    scene.state.restored(scene.now);
    scene.read("one", &[Some(9), Some(9)], 0);
    assert_eq!(scene.next(&seen), Some(Step::Deploy { replicas: 2 }));
}

#[test]
fn offsets_of_a_role_that_the_pool_does_not_have_are_kept() {
    let mut scene = Scene::new(plan("enabled: false"), Some(status("one", "topic", &[])));
    let of_role = scene.plan.role(Role::Processor).clone();
    let next = |scene: &mut Scene, replicas| {
        let step = scene
            .state
            .stand_down(&of_role, &workload(replicas), KEEP_AFTER, scene.now);
        if step.is_some() {
            scene.state.done(scene.now);
        }
        step
    };
    assert_eq!(next(&mut scene, 2), Some(Step::Deploy { replicas: 0 }));
    scene.now = scene.now + KEEP_AFTER;
    scene.read("one", &[Some(3), Some(4)], 0);
    assert_eq!(next(&mut scene, 0), Some(Step::Keep(vec![0, 1])));
    assert_eq!(scene.state.adoption().unwrap().offsets, [3, 4]);
    let wanted = scene.state.wanted(&of_role, &workload(0), KEEP_AFTER, scene.now);
    assert_eq!(wanted.interval, READ_DISABLED_EVERY);
}
