//! A pool in a situation, for tests of decisions.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A pool in a situation that a test changes step by step; decisions are carried out.
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
                bounds: Bounds::new(0..=8).expect("in order"),
                target: Target::TasksPerReplica(NonZeroU32::MIN),
                mode: Mode::Active,
                stabilisation: 120 * SECOND,
                settle: 2 * SECOND,
                rebalance_hold: 25 * SECOND,
                stale_after: 30 * SECOND,
            },
            observation: Observation {
                lag: LagReading {
                    at: Moment::from_millis(1_000_000),
                    lag: Lag::Known(Work::of([0; 8])),
                },
                group: GroupReading::NotRead,
                workload: Workload::default(),
                conflict: None,
                held: None,
            },
            history: History::default(),
            now: Moment::from_millis(1_000_000),
        }
    }

    pub(super) fn bounds(mut self, bounds: std::ops::RangeInclusive<u32>) -> Self {
        self.policy.bounds = Bounds::new(bounds).expect("in order");
        self
    }

    pub(super) fn work<const N: usize>(mut self, messages: [u64; N]) -> Self {
        self.observation.lag.lag = Lag::Known(Work::of(messages));
        self
    }

    pub(super) fn partial<const N: usize>(mut self, messages: [u64; N]) -> Self {
        self.observation.lag.lag = Lag::Partial {
            known: Work::of(messages),
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

    /// Time passes, and everything is read anew.
    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.now = self.now + Duration::from_secs(seconds);
        self.observation.lag.at = self.now;
        if let GroupReading::Stable { at, .. } = &mut self.observation.group {
            *at = self.now;
        }
        self
    }

    /// Decides without carrying anything out.
    pub(super) fn look(&self) -> Decision {
        decide(&self.policy, &self.observation, self.history.clone(), self.now)
    }

    /// Decides and carries it out: replicas change, marked pods go first.
    pub(super) fn decided(mut self) -> (Self, Decision) {
        let decision = self.look();
        self.history = decision.history.clone();
        apply(&mut self.observation.workload, &decision.writes);
        (self, decision)
    }

    #[track_caller]
    pub(super) fn gives(self, reason: Reason, desired: u32) -> Self {
        let (scene, decision) = self.decided();
        assert_eq!(
            (decision.reason(), decision.desired()),
            (reason, desired),
            "{}",
            decision.explanation
        );
        scene
    }
}

/// What the cluster does with what is written: marked pods that are ready go first, those that are not before them.
pub(super) fn apply(workload: &mut Workload, writes: &Writes) {
    for pod in &mut workload.pods {
        if writes.mark.contains(&pod.name) {
            pod.marked = Marked::Yes;
        }
        if writes.unmark.contains(&pod.name) {
            pod.marked = Marked::No;
        }
    }
    if let Some(replicas) = writes.replicas {
        workload.replicas = replicas;
        workload.pods.sort_by_key(|pod| {
            let first = match pod.state {
                PodState::Draining => 0,
                PodState::Unschedulable => 1,
                PodState::NotReady => 2,
                PodState::Ready if pod.marked == Marked::Yes => 3,
                PodState::Ready => 4,
            };
            (first, pod.name.clone())
        });
        let live = fleet::live(workload).count();
        let leave = live.saturating_sub(replicas as usize);
        let live = workload
            .pods
            .iter_mut()
            .filter(|pod| pod.state != PodState::Draining);
        for pod in live.take(leave) {
            pod.state = PodState::Draining;
            pod.marked = Marked::No;
        }
    }
}

fn pod(number: u32, state: PodState) -> Pod {
    Pod {
        name: format!("p{number}").as_str().into(),
        state,
        marked: Marked::No,
    }
}

fn member(pod: &Pod) -> Member {
    let number = pod.name.as_str()[1..].parse().expect("pods are numbered");
    Member {
        pod: pod.name.clone(),
        holds: Holds::Partitions(vec![number]),
    }
}
