//! A pool in a situation, for tests of decisions.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Plans take fewer writes than this.
const MAX_WRITES: usize = 9;

/// A pool in a situation that a test changes step by step; decisions are executed.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) policy: Policy,
    pub(super) observation: Observation,
    pub(super) history: History,
    pub(super) now: Moment,
}

impl Scene {
    /// Up to eight workers, one for each message; nothing runs.
    pub(super) fn new() -> Self {
        Self {
            policy: Policy {
                limits: ReplicaLimits::new(0..=8).expect("in order"),
                target: Target::TasksPerReplica(NonZeroU32::MIN),
                mode: Mode::Auto,
                stabilization: 120 * SECOND,
                last_replica_stabilization: 120 * SECOND,
                cooldown: 2 * SECOND,
                rebalance_hold: 25 * SECOND,
                stale_after: 30 * SECOND,
            },
            observation: Observation {
                lag: LagReading {
                    at: Moment::from_millis(1_000_000),
                    lag: Lag::Known(LagByPartition::from_messages([0; 8])),
                },
                group: GroupReading::NotRead,
                workload: Workload::default(),
                conflict: None,
                refusal: None,
                estimates: Estimates::default(),
                queue: None,
            },
            history: History::default(),
            now: Moment::from_millis(1_000_000),
        }
    }

    pub(super) fn limits(mut self, limits: std::ops::RangeInclusive<u32>) -> Self {
        self.policy.limits = ReplicaLimits::new(limits).expect("in order");
        self
    }

    pub(super) fn lag<const N: usize>(mut self, messages: [u64; N]) -> Self {
        self.observation.lag.lag = Lag::Known(LagByPartition::from_messages(messages));
        self
    }

    pub(super) fn partial<const N: usize>(mut self, messages: [u64; N]) -> Self {
        self.observation.lag.lag = Lag::Partial {
            known: LagByPartition::from_messages(messages),
            missing: 1,
            why: "broker 2 did not answer".into(),
        };
        self
    }

    pub(super) fn unknown(mut self) -> Self {
        self.observation.lag.lag = Lag::Unknown {
            why: "no broker answered within 5 s".into(),
        };
        self
    }

    /// Ready pods `p0`, `p1` … that own one partition each; replicas as many.
    pub(super) fn running(mut self, count: u32) -> Self {
        self.observation.workload = Workload {
            replicas: count,
            pods: (0..count).map(|n| pod(n, PodState::Ready)).collect(),
            status: None,
        };
        self.members()
    }

    /// All pods that are ready or draining are members, and pod `n` owns partition `n`.
    pub(super) fn members(mut self) -> Self {
        let pods = self.observation.workload.pods.iter();
        let joined = pods.filter(|pod| matches!(pod.state, PodState::Ready | PodState::Draining));
        self.observation.group = GroupReading::Stable {
            at: self.now,
            members: joined.map(member).collect(),
        };
        self
    }

    pub(super) fn state(mut self, pods: std::ops::Range<usize>, state: PodState) -> Self {
        for pod in &mut self.observation.workload.pods[pods] {
            pod.state = state;
        }
        self
    }

    /// Draining pods beside those that are running.
    pub(super) fn draining(mut self, numbers: std::ops::Range<u32>) -> Self {
        let pods = &mut self.observation.workload.pods;
        pods.extend(numbers.map(|n| pod(n, PodState::Draining)));
        self
    }

    /// These pods are of a second, newer ReplicaSet, and the status reports it.
    pub(super) fn updated(mut self, pods: std::ops::Range<usize>) -> Self {
        for pod in &mut self.observation.workload.pods[pods] {
            pod.replica_set = "set-2".into();
        }
        self.observation.workload.status = Some(status(&self.observation.workload));
        self
    }

    /// Time passes, and everything is read again.
    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.now = self.now + Duration::from_secs(seconds);
        self.observation.lag.at = self.now;
        if let GroupReading::Stable { at, .. } = &mut self.observation.group {
            *at = self.now;
        }
        self
    }

    /// Decides without executing the plan.
    pub(super) fn decision(&self) -> Decision {
        decide(&self.policy, &self.observation, self.history.clone(), self.now)
    }

    /// Decides and executes the plan write by write, deciding again after each, as the operator does. Returns the first
    /// decision.
    pub(super) fn executed(mut self) -> (Self, Decision) {
        let first = self.decision();
        let mut decision = first.clone();
        for _ in 0..MAX_WRITES {
            let workload = &mut self.observation.workload;
            let executed = decision.execute_next(self.now, |write| execute(workload, write));
            self.history = decision.history;
            if executed.is_none() {
                return (self, first);
            }
            decision = self.decision();
        }
        panic!(
            "after {MAX_WRITES} writes there is still one: {:?}",
            decision.plan
        );
    }

    #[track_caller]
    pub(super) fn expect(self, reason: Reason, desired: u32) -> Self {
        let (scene, decision) = self.executed();
        assert_eq!(
            (decision.reason(), decision.desired()),
            (reason, desired),
            "{}",
            decision.explanation
        );
        scene
    }
}

/// Applies a write immediately, as the cluster would.
pub(crate) fn execute(workload: &mut Workload, write: &Write) {
    match write {
        Write::Annotate(names) => annotate(workload, names, CostAnnotation::Present),
        Write::Unannotate(names) => annotate(workload, names, CostAnnotation::Absent),
        Write::SetReplicas(replicas) => {
            workload.replicas = *replicas;
            let surplus = workload.surplus_pods();
            for pod in &mut workload.pods {
                if surplus.contains(&pod.name) {
                    pod.state = PodState::Draining;
                    pod.cost_annotation = CostAnnotation::Absent;
                }
            }
        }
    }
    if workload.status.is_some() {
        workload.status = Some(status(workload));
    }
}

/// The status that a Deployment has once its controller has acted; the ReplicaSet whose name is last is the newest.
pub(super) fn status(workload: &Workload) -> PodStatus {
    let newest = workload.live().map(|pod| &pod.replica_set).max();
    let updated = workload.live().filter(|pod| Some(&pod.replica_set) == newest);
    PodStatus {
        observed: true,
        replicas: u32::try_from(workload.live().count()).expect("a few"),
        updated: u32::try_from(updated.count()).expect("a few"),
    }
}

fn annotate(workload: &mut Workload, names: &[PodName], cost_annotation: CostAnnotation) {
    let named = workload.pods.iter_mut().filter(|pod| names.contains(&pod.name));
    named.for_each(|pod| pod.cost_annotation = cost_annotation);
}

pub(super) fn pod(number: u32, state: PodState) -> Pod {
    Pod {
        name: format!("p{number}").as_str().into(),
        state,
        cost_annotation: CostAnnotation::Absent,
        replica_set: "set-1".into(),
        created: None,
    }
}

fn member(pod: &Pod) -> Member {
    let number = pod.name.as_str()[1..].parse().expect("pods are numbered");
    Member {
        pod: pod.name.clone(),
        work: MemberWork::Partitions(vec![number]),
    }
}
