//! The steps of a role for its decisions, write by write.

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::crd::{InitialOffset, from_yaml};
use crate::decide::{
    CostAnnotation, LagByPartition, Member, MemberWork, PartitionQueue, Pod, PodName, PodState, PodStatus,
    Reason, RunningTask, scene,
};
use crate::observe::FinishedTask;
use crate::plan::{PoolPlan, Role};
use crate::reconcile::group_offsets::tests::{identity, members, polled};
use crate::reconcile::retry::Pause;

const HASH: &str = "hash";
const UID: &str = "uid";
const SERVERS: &str = "kafka:9092";

/// A role with initialized offsets, whose pods are members of its group.
struct RoleFixture {
    plan: RolePlan,
    state: RoleState,
    deployment: DeploymentSnapshot,
    workload: Workload,
    adoption: OffsetsStatus,
    now: Moment,
}

impl RoleFixture {
    fn new(pods: u32) -> Self {
        let yaml = "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {name: vocals, namespace: media, uid: uid}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {stems: {bucket: stems}, staging: {s3: {}}}
  processor: {scaling: {maxReplicas: 9, scaleDown: {stabilizationWindowSeconds: 10}}}
";
        let plan = PoolPlan::from_pool(&from_yaml(yaml).expect("a pool")).expect("a plan");
        let adoption = OffsetsStatus {
            topic_id: "topic".to_owned(),
            cluster_id: "cluster".to_owned(),
            consumer_group: String::new(),
            committed: Vec::new(),
            workers_joined: false,
            partitions: 9,
            initial_offset: InitialOffset::Earliest,
            initialized_time: Time(Timestamp::UNIX_EPOCH),
        };
        let pods = (0..pods).map(|n| Pod {
            name: PodName::from(&*format!("p{n}")),
            state: PodState::Ready,
            cost_annotation: CostAnnotation::Absent,
            replica_set: "set-1".into(),
            created: None,
        });
        let pods: Vec<Pod> = pods.collect();
        let replicas = u32::try_from(pods.len()).expect("a few");
        let status = PodStatus {
            observed: true,
            replicas,
            updated: replicas,
        };
        Self {
            plan: plan.role(Role::Processor).clone(),
            state: RoleState::new(Some(&adoption), Moment::default()),
            deployment: DeploymentSnapshot {
                resource_version: "1".into(),
                our_fields: None,
                owner: Some(UID.into()),
                replicas,
                manifest_hash: Some(HASH.into()),
                secrets_hash: None,
                is_edited: false,
                assignor: None,
                staging: None,
                servers: Some(SERVERS.into()),
                is_replacing_all: false,
                status: Some(status),
                problem: None,
            },
            workload: Workload {
                replicas,
                pods,
                status: Some(status),
            },
            adoption,
            now: Moment::from_millis(1_000_000),
        }
    }

    /// Reads lag and members some seconds later: pod `n` owns partition `n`.
    fn read<const N: usize>(&mut self, seconds: u64, messages: [u64; N]) {
        self.now = self.now + Duration::from_secs(seconds);
        self.state.reading = Some(RoleReading {
            at: self.now,
            lag: Lag::Known(LagByPartition::from_messages(messages)),
            anomalies: Vec::new(),
            topic_is_missing: false,
            holds: Vec::new(),
            queue: None,
            refused: None,
        });
        let members = self.workload.pods.iter().zip(0..).map(|(pod, partition)| Member {
            pod: pod.name.clone(),
            work: MemberWork::Partitions(vec![partition]),
        });
        self.state.group = Some(GroupReading::Stable {
            at: self.now,
            members: members.collect(),
        });
    }

    /// The next step.
    fn next(&mut self) -> Option<Step> {
        self.next_for_manifest(HASH)
    }

    /// The same, with this hash of the planned manifest.
    fn next_for_manifest(&mut self, manifest_hash: &str) -> Option<Step> {
        let key = RoleKey {
            pool: Arc::new(crate::plan::PoolId {
                namespace: "media".to_owned(),
                name: "vocals".to_owned(),
            }),
            role: Role::Processor,
        };
        let inputs = RoleInputs {
            plan: &self.plan,
            servers: SERVERS,
            deployment: Some(&self.deployment),
            manifest_hash,
            pool_uid: UID,
            worker_ids: &WorkerIds::new(&key, UID),
            conflict: None,
            written_adoption: Some(&self.adoption),
            recommit_after: Duration::from_secs(3_600),
        };
        self.state.next(inputs, self.workload.clone(), self.now)
    }

    /// Carries out a step.
    fn execute(&mut self, step: &Step) {
        let Step::Write(write) = step else {
            panic!("{step:?}")
        };
        scene::execute(&mut self.workload, write);
        self.deployment.replicas = self.workload.replicas;
        self.state.step_succeeded(self.now);
    }

    /// The times that the next decision expects.
    fn estimates(&mut self) -> Estimates {
        self.next();
        self.state.step_succeeded(self.now);
        self.state.estimates.expect("decided")
    }

    fn reason(&self) -> Reason {
        self.state.explanation.as_ref().expect("decided").reason
    }

    /// Four workers, two of them scale-down candidates whose annotation was confirmed by a later reading.
    fn about_to_scale_down() -> Self {
        let mut fixture = Self::new(4);
        for seconds in [0, 12] {
            fixture.read(seconds, [1, 1, 0, 0]);
            if let Some(step) = fixture.next() {
                let pods = vec!["p2".into(), "p3".into()];
                assert_eq!(step, Step::Write(Write::Annotate(pods)));
                fixture.execute(&step);
            }
        }
        assert_eq!(fixture.workload.pods[3].cost_annotation, CostAnnotation::Present);
        fixture
    }
}

fn set_replicas(replicas: u32) -> Step {
    Step::Write(Write::SetReplicas(replicas))
}

#[test]
fn a_scale_up_that_interrupts_a_scale_down_has_no_cooldown_between_its_writes() {
    let mut fixture = RoleFixture::about_to_scale_down();
    fixture.read(2, [1; 6]);
    let up = fixture.next().expect("a step");
    assert_eq!(up, set_replicas(6));
    assert_eq!(fixture.reason(), Reason::BacklogCovered);
    assert_eq!(fixture.next(), None, "one thing at a time");
    fixture.execute(&up);
    let unannotate = fixture.next().expect("a step");
    let pods = vec!["p2".into(), "p3".into()];
    assert_eq!(unannotate, Step::Write(Write::Unannotate(pods)));
    assert_eq!(fixture.reason(), Reason::BacklogCovered);
    fixture.execute(&unannotate);
    assert_eq!(fixture.next(), None);
    assert_eq!(fixture.reason(), Reason::BacklogCovered);
}

#[test]
fn a_scale_up_begins_a_cooldown_only_if_it_succeeds() {
    let mut fixture = RoleFixture::new(1);
    fixture.read(0, [1, 1]);
    for _ in 0..2 {
        assert_eq!(fixture.next(), Some(set_replicas(2)));
        fixture.state.step_failed(None, Pause::None, fixture.now);
    }
    fixture.read(60, [1, 1]);
    let step = fixture.next().expect("a step");
    fixture.execute(&step);
    fixture.read(0, [1, 1, 1]);
    assert_eq!(fixture.next(), None);
    assert_eq!(fixture.reason(), Reason::CoolingDown);
}

#[test]
fn a_scale_down_whose_response_is_lost_begins_a_cooldown_and_an_outdated_one_does_not() {
    let mut fixture = RoleFixture::about_to_scale_down();
    fixture.read(2, [1, 1, 0, 0]);
    assert_eq!(fixture.next(), Some(set_replicas(2)));
    fixture.state.step_outdated(fixture.now);
    assert_eq!(fixture.next(), Some(set_replicas(2)));
    fixture.state.step_failed(None, Pause::None, fixture.now);
    assert_eq!(fixture.next(), None);
    assert_eq!(fixture.reason(), Reason::CoolingDown);
}

#[test]
fn a_pod_of_a_disabled_role_that_does_not_end_is_a_problem() {
    let mut fixture = RoleFixture::new(1);
    fixture.workload.replicas = 0;
    let mut stuck_with = |state: PodState| {
        fixture.workload.pods[0].state = state;
        let recommit_after = Duration::from_secs(3_600);
        let (plan, workload) = (&fixture.plan, &fixture.workload);
        fixture.state.disable(plan, workload, recommit_after, fixture.now);
        let stuck = fixture.state.stuck.as_ref();
        stuck.map(|problem| problem.reason.to_string())
    };
    assert_eq!(stuck_with(PodState::Draining), None);
    let expected = Some("PodsStuckTerminating".to_owned());
    assert_eq!(stuck_with(PodState::Overdue), expected);
}

#[test]
fn a_new_template_is_never_written_with_fewer_replicas() {
    let mut fixture = RoleFixture::about_to_scale_down();
    fixture.read(2, [1, 1, 0, 0]);
    assert_eq!(fixture.next_for_manifest("another"), Some(set_replicas(4)));
    fixture.state.step_outdated(fixture.now);
    fixture.read(2, [1; 6]);
    assert_eq!(fixture.next_for_manifest("another"), Some(set_replicas(6)));
}

#[test]
fn decisions_expect_the_start_up_time_of_observed_pods_unless_the_spec_declares_one() {
    let mut fixture = RoleFixture::new(0);
    fixture.read(0, [0]);
    assert_eq!(fixture.estimates(), Estimates::default());
    fixture.workload.replicas = 1;
    fixture.workload.pods.push(Pod {
        name: "p0".into(),
        state: PodState::Ready,
        cost_annotation: CostAnnotation::Absent,
        replica_set: "set-1".into(),
        created: Some(fixture.now),
    });
    fixture.read(40, [1]);
    let learned = fixture.estimates();
    assert!(learned.startup < Estimates::default().startup, "{learned:?}");
    let summary = fixture.state.learning.summary();
    assert_eq!((summary.starts, summary.startup_seconds), (1, 40));
    let declared = Duration::from_secs(7);
    fixture.plan.declared.startup = Some(declared);
    assert_eq!(fixture.estimates().startup, declared);
}

#[test]
fn the_oldest_age_is_that_of_the_oldest_message_that_does_not_run() {
    let mut fixture = RoleFixture::new(0);
    assert_eq!(fixture.state.oldest_age(fixture.now), None);
    let at = fixture.now;
    let running = Some(RunningTask {
        since: at,
        percent: None,
    });
    let seconds = |age| at + Duration::from_secs(600_u64 - age);
    for (arrivals, running, expected) in [
        (vec![vec![]], None, 0),
        (vec![vec![(seconds(500), 1)]], None, 500),
        // Without a start deadline the running message is unknown, and counts.
        (
            vec![vec![(seconds(30), 1)], vec![(seconds(500), 1), (seconds(40), 1)]],
            None,
            500,
        ),
        (vec![vec![(seconds(500), 1)]], running, 0),
        (vec![vec![(seconds(500), 1), (seconds(40), 1)]], running, 40),
        (vec![vec![(seconds(500), 2)]], running, 500),
        (
            vec![vec![(seconds(500), 1), (seconds(40), 1)], vec![(seconds(50), 2)]],
            running,
            50,
        ),
    ] {
        fixture.read(0, []);
        let partitions = (0..).zip(arrivals).map(|(partition, arrivals)| PartitionQueue {
            partition,
            arrivals,
            running,
        });
        let queue = Queue {
            partitions: partitions.collect(),
        };
        let reading = fixture.state.reading.as_mut().expect("a reading");
        reading.queue = Some(queue.clone());
        let age = fixture.state.oldest_age(at + Duration::from_secs(600));
        assert_eq!(age, Some(Duration::from_secs(expected)), "{queue:?}");
    }
    // The lag is unknown, or counted from other offsets.
    fixture.read(0, [1]);
    assert_eq!(fixture.state.oldest_age(fixture.now), None);
}

#[test]
fn decisions_expect_the_time_of_tasks_that_readings_show_as_completed() {
    let mut fixture = RoleFixture::new(0);
    let (offsets, plan) = (&fixture.state.offsets, &fixture.plan);
    let group = members(0, fixture.now);
    let mut polled = polled(
        offsets,
        plan,
        identity("cluster", "topic"),
        &[Some(9)],
        group,
        fixture.now,
    );
    polled.result.finished = vec![FinishedTask {
        partition: 0,
        next: 9,
        took: Duration::from_secs(300),
    }];
    fixture
        .state
        .read(polled, &fixture.plan, &Time(Timestamp::UNIX_EPOCH));
    let expected = fixture.estimates();
    assert!(expected.task > Estimates::default().task, "{expected:?}");
    assert_eq!(fixture.state.learning.summary().tasks, 1);
}
