//! What a role does with its decisions, write by write.

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::crd::from_yaml;
use crate::decide::{Holds, Member, Pod, PodName, PodState, PodStatus, Reason, Work};
use crate::plan::{PoolPlan, Role};
use crate::reconcile::retry::Pause;

const HASH: &str = "hash";
const UID: &str = "uid";
const SERVERS: &str = "kafka:9092";

/// A role whose offsets are initialised, with pods that are members of its group.
struct Scene {
    plan: RolePlan,
    state: RoleState,
    deployment: DeploymentSeen,
    workload: Workload,
    adoption: AdoptionStatus,
    now: Moment,
}

impl Scene {
    fn new(pods: u32) -> Self {
        let yaml = "
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {name: vocals, namespace: media, uid: uid}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {s3: {bucket: stems}, work: {s3Prefix: staging/}}
  processor: {scaling: {maxReplicas: 9, scaleDownStabilizationSeconds: 10}}
";
        let plan = PoolPlan::of(&from_yaml(yaml).expect("a pool")).expect("a plan");
        let adoption = AdoptionStatus {
            topic_id: "topic".to_owned(),
            cluster_id: "cluster".to_owned(),
            consumer_group: String::new(),
            offsets: Vec::new(),
            partitions: 9,
            policy: "earliest".to_owned(),
            at: Time(Timestamp::UNIX_EPOCH),
        };
        let pods = (0..pods).map(|n| Pod {
            name: PodName::from(&*format!("p{n}")),
            state: PodState::Ready,
            marked: Marked::No,
            replica_set: "set-1".into(),
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
            deployment: DeploymentSeen {
                resource_version: "1".into(),
                our_fields: None,
                owner: Some(UID.into()),
                replicas,
                manifest_hash: Some(HASH.into()),
                secrets_hash: None,
                is_edited: false,
                assignor: None,
                servers: Some(SERVERS.into()),
                is_replacing_all: false,
                status: Some(status),
                trouble: None,
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

    /// Lag and members are read, some time later: pod `n` owns partition `n`.
    fn read<const N: usize>(&mut self, seconds: u64, messages: [u64; N]) {
        self.now = self.now + Duration::from_secs(seconds);
        self.state.reading = Some(Reading {
            at: self.now,
            lag: Lag::Known(Work::of(messages)),
            flags: Vec::new(),
            holds: Vec::new(),
            refused: None,
        });
        let members = self.workload.pods.iter().zip(0..).map(|(pod, partition)| Member {
            pod: pod.name.clone(),
            holds: Holds::Partitions(vec![partition]),
        });
        self.state.group = Some(GroupReading::Stable {
            at: self.now,
            members: members.collect(),
        });
    }

    /// What is begun now.
    fn next(&mut self) -> Option<Step> {
        self.next_of(HASH)
    }

    /// The same where the Deployment should have a manifest of this hash.
    fn next_of(&mut self, manifest_hash: &str) -> Option<Step> {
        let key = RoleKey {
            pool: Arc::new(crate::plan::PoolId {
                namespace: "media".to_owned(),
                name: "vocals".to_owned(),
            }),
            role: Role::Processor,
        };
        let around = Surroundings {
            plan: &self.plan,
            servers: SERVERS,
            deployment: Some(&self.deployment),
            manifest_hash,
            pool_uid: UID,
            worker_ids: &WorkerIds::new(&key, UID),
            written_adoption: Some(&self.adoption),
            keep_after: Duration::from_secs(3_600),
        };
        self.state.next(around, self.workload.clone(), None, self.now)
    }

    /// Carries out what was begun.
    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Deploy { replicas } => {
                self.deployment.replicas = *replicas;
                self.workload.replicas = *replicas;
            }
            Step::Annotate { pods, marked } => {
                let named = self
                    .workload
                    .pods
                    .iter_mut()
                    .filter(|pod| pods.contains(&pod.name));
                named.for_each(|pod| pod.marked = *marked);
            }
            Step::Adopt(_) | Step::Restore(_) | Step::Keep(_) => panic!("{step:?}"),
        }
        self.state.done(self.now);
    }

    fn reason(&self) -> Reason {
        self.state.explanation.as_ref().expect("decided").reason
    }

    /// Four workers, two of them annotated to go, and a reading later that they may.
    fn about_to_scale_down() -> Self {
        let mut scene = Self::new(4);
        for seconds in [0, 12] {
            scene.read(seconds, [1, 1, 0, 0]);
            if let Some(step) = scene.next() {
                let pods = vec!["p2".into(), "p3".into()];
                let marked = Marked::Yes;
                assert_eq!(step, Step::Annotate { pods, marked });
                scene.carry_out(&step);
            }
        }
        assert_eq!(scene.workload.pods[3].marked, Marked::Yes);
        scene
    }
}

#[test]
fn a_scale_up_that_interrupts_a_scale_down_is_done_write_by_write_without_a_cooldown_between() {
    let mut scene = Scene::about_to_scale_down();
    scene.read(2, [1; 6]);
    let up = scene.next().expect("a step");
    assert_eq!(up, Step::Deploy { replicas: 6 });
    assert_eq!(scene.reason(), Reason::NeedMet);
    assert_eq!(scene.next(), None, "one thing at a time");
    scene.carry_out(&up);
    let unmark = scene.next().expect("a step");
    let pods = vec!["p2".into(), "p3".into()];
    assert_eq!(
        unmark,
        Step::Annotate {
            pods,
            marked: Marked::No
        }
    );
    assert_eq!(scene.reason(), Reason::NeedMet);
    scene.carry_out(&unmark);
    assert_eq!(scene.next(), None);
    assert_eq!(scene.reason(), Reason::NeedMet);
}

#[test]
fn a_scale_up_that_fails_begins_no_cooldown_and_one_that_is_done_does() {
    let mut scene = Scene::new(1);
    scene.read(0, [1, 1]);
    for _ in 0..2 {
        assert_eq!(scene.next(), Some(Step::Deploy { replicas: 2 }));
        scene.state.failed(None, Pause::None, scene.now);
    }
    scene.read(60, [1, 1]);
    let step = scene.next().expect("a step");
    scene.carry_out(&step);
    scene.read(0, [1, 1, 1]);
    assert_eq!(scene.next(), None);
    assert_eq!(scene.reason(), Reason::Settling);
}

#[test]
fn a_scale_down_whose_answer_is_lost_may_have_been_done_and_one_that_is_outdated_was_not() {
    let mut scene = Scene::about_to_scale_down();
    scene.read(2, [1, 1, 0, 0]);
    assert_eq!(scene.next(), Some(Step::Deploy { replicas: 2 }));
    scene.state.outdated(scene.now);
    assert_eq!(scene.next(), Some(Step::Deploy { replicas: 2 }));
    scene.state.failed(None, Pause::None, scene.now);
    assert_eq!(scene.next(), None);
    assert_eq!(scene.reason(), Reason::Settling);
}

#[test]
fn a_new_template_never_comes_with_fewer_replicas() {
    let mut scene = Scene::about_to_scale_down();
    scene.read(2, [1, 1, 0, 0]);
    assert_eq!(scene.next_of("another"), Some(Step::Deploy { replicas: 4 }));
    scene.state.outdated(scene.now);
    scene.read(2, [1; 6]);
    assert_eq!(scene.next_of("another"), Some(Step::Deploy { replicas: 6 }));
}
