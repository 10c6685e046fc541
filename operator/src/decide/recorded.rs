//! A recorded hash of decisions, by which a change that is not meant to change decisions shows that it does not.
//!
//! The situations depend on this file and on the model of the cluster in `scene`: not on the order of a map, the time,
//! or another crate's random numbers.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use super::scene::{SECOND, Scene, execute, status};
use super::*;

/// The hash of the decisions. To record another one, copy it from the failed test; the commit gives the reason why
/// decisions differ.
const RECORDED: &str = "452d96f6275312e4";

/// Pools, and decisions about each of them.
const POOLS: u64 = 4_000;
const DECISIONS: u32 = 25;

#[test]
fn decisions_of_seeded_situations_are_unchanged() {
    let mut hash = DecisionHash(0xcbf2_9ce4_8422_2325);
    let mut reasons = BTreeSet::new();
    for seed in 0..POOLS {
        let mut pool = SeededPool::new(seed);
        for _ in 0..DECISIONS {
            let decision = pool.scene.decision();
            hash.add(&decision);
            reasons.extend([decision.reason(), decision.explanation.decision_reason]);
            pool.execute(decision);
            if !pool.random.once_in(3) {
                pool.advance();
            }
        }
    }
    assert_eq!(reasons, BTreeSet::from(Reason::ALL), "some reasons do not occur");
    let found = format!("{:016x}", hash.0);
    assert_eq!(
        found, RECORDED,
        "decisions have changed; if that is intended, record {found:?} in `RECORDED`, and give the reason in the commit"
    );
}

/// FNV-1a of what was written to it.
struct DecisionHash(u64);

impl std::fmt::Write for DecisionHash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl DecisionHash {
    /// Adds the values of a decision, without names of fields and without sentences, which may change. Its history
    /// shows in later decisions.
    fn add(&mut self, decision: &Decision) {
        let explanation = &decision.explanation;
        let reasons = (
            explanation.reason,
            explanation.decision_reason,
            explanation.limit,
            explanation.why.is_some(),
        );
        let lag = explanation.lag;
        let lag = lag.map(|lag| {
            (
                lag.messages,
                lag.partitions_with_work,
                lag.partitions,
                lag.missing,
            )
        });
        let replicas = (
            explanation.need,
            explanation.limited_need,
            explanation.current,
            explanation.desired,
        );
        let counts = explanation.pods;
        let activity = counts.activity;
        let activity = activity.map(|pods| (pods.busy, pods.idle, pods.unknown));
        let pods = (counts.ready, counts.draining, counts.unschedulable, activity);
        let values = (&decision.plan, reasons, lag, replicas, pods);
        write!(self, "{values:?}").expect("a hash takes any text");
    }
}

/// Random numbers: SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).expect("less than a u32")
    }

    fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    fn one_of<T: Copy, const N: usize>(&mut self, values: [T; N]) -> T {
        values[self.below(u32::try_from(N).expect("a few")) as usize]
    }

    /// 1 to `most`.
    fn positive(&mut self, most: u32) -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(self.below(most))
    }
}

/// A pool whose situation changes at random.
struct SeededPool {
    random: Random,
    scene: Scene,
    messages: Vec<u64>,
    /// Number of pods so far.
    started: u32,
}

impl SeededPool {
    fn new(seed: u64) -> Self {
        let mut pool = Self {
            random: Random(seed),
            scene: Scene::new(),
            messages: Vec::new(),
            started: 0,
        };
        pool.scene.policy = policy(&mut pool.random);
        pool.scene.observation.workload.replicas = pool.random.below(12);
        pool.messages = messages(&mut pool.random);
        pool.advance();
        pool
    }

    /// Executes the first write of the plan. It may fail, and then is decided again; or its response may be lost, and
    /// then it counts as executed.
    fn execute(&mut self, mut decision: Decision) {
        let workload = &mut self.scene.observation.workload;
        match self.random.below(10) {
            0 => {}
            1 => {
                decision.execute_next(self.scene.now, |_| {});
            }
            _ => {
                decision.execute_next(self.scene.now, |write| execute(workload, write));
            }
        }
        self.scene.history = decision.history;
    }

    /// Time passes. Most of what a decision depends on is read again, and some of it has changed.
    fn advance(&mut self) {
        let Self {
            random,
            scene,
            messages: queued,
            started,
        } = self;
        scene.now = scene.now + random.one_of([0_u32, 1, 2, 2, 2, 2, 4, 4, 40]) * SECOND;
        if random.once_in(5) {
            *queued = messages(random);
        }
        let observation = &mut scene.observation;
        if !random.once_in(6) {
            let at = scene.now;
            let lag = lag(random, queued);
            observation.lag = LagReading { at, lag };
        }
        change_pods(random, &mut observation.workload, started);
        if !random.once_in(6) {
            observation.group = group(random, &observation.workload.pods, *started, scene.now);
        }
        let conflict = random.once_in(40);
        observation.conflict = conflict.then(|| "another pool uses the group".into());
        let refusal = random.once_in(12);
        observation.refusal = refusal.then(|| "the object store refuses a worker".into());
        if random.once_in(40) {
            scene.policy = policy(random);
        }
        if random.once_in(40) {
            // The operator restarts.
            scene.history = History::default();
        }
    }
}

fn policy(random: &mut Random) -> Policy {
    let min = random.one_of([0_u32, 0, 0, 1, 2, 5]);
    let max = (min + random.below(12)).max(1);
    let target = if random.once_in(2) {
        Target::TasksPerReplica(random.positive(4))
    } else {
        Target::DrainDeadline {
            within_seconds: random.positive(600),
            task_seconds: random.positive(200),
        }
    };
    let active = Mode::Auto;
    Policy {
        limits: ReplicaLimits::new(min..=max).expect("in order"),
        target,
        mode: random.one_of([active, active, active, active, Mode::Paused, Mode::DryRun]),
        stabilization: random.below(5) * SECOND,
        last_replica_stabilization: random.below(9) * SECOND,
        cooldown: random.below(5) * SECOND,
        rebalance_hold: random.below(5) * SECOND,
        stale_after: 30 * SECOND,
    }
}

/// Messages of each partition: none, a few or very many, on no, some or all partitions.
fn messages(random: &mut Random) -> Vec<u64> {
    let partitions = random.one_of([12_u32, 12, 12, 12, 9, 0]);
    let with_messages = random.below(5);
    let messages = (0..partitions).map(|_| {
        if random.below(4) >= with_messages {
            0
        } else if random.once_in(20) {
            random.next()
        } else {
            random.one_of([1, 1, 2, 3])
        }
    });
    messages.collect()
}

fn lag(random: &mut Random, messages: &[u64]) -> Lag {
    let read = LagByPartition::from_messages(messages.iter().copied());
    match random.below(16) {
        0 => Lag::Unknown {
            why: "unreachable".into(),
        },
        1 => Lag::Partial {
            known: read,
            missing: 1 + random.below(3),
            why: "unreachable".into(),
        },
        _ => Lag::Known(read),
    }
}

/// Pods start, become ready, lose their node, drain and end; a rolling update replaces some; another client changes
/// replicas; and the Deployment's status may be missing, outdated or count a pod that is not observed yet.
fn change_pods(random: &mut Random, workload: &mut Workload, started: &mut u32) {
    workload
        .pods
        .retain(|pod| pod.state.is_live() || !random.once_in(3));
    for pod in &mut workload.pods {
        pod.state = match pod.state {
            PodState::Unschedulable if random.once_in(3) => PodState::NotReady,
            PodState::NotReady if !random.once_in(4) => PodState::Ready,
            PodState::Ready if random.once_in(40) => random.one_of([PodState::NotReady, PodState::Draining]),
            PodState::Draining if random.once_in(6) => PodState::Overdue,
            state => state,
        };
        match random.below(160) {
            0 => pod.replica_set = "set-2".into(),
            1..=80 => pod.replica_set = "set-1".into(),
            _ => {}
        }
    }
    if random.once_in(40) {
        workload.replicas = random.below(12);
    }
    let live = u32::try_from(workload.live().count()).expect("a few");
    for _ in live..workload.replicas {
        if random.once_in(4) {
            continue;
        }
        let unschedulable = random.once_in(8);
        workload.pods.push(Pod {
            name: format!("p{started}").as_str().into(),
            state: if unschedulable {
                PodState::Unschedulable
            } else {
                PodState::NotReady
            },
            cost_annotation: CostAnnotation::Absent,
            replica_set: "set-1".into(),
            created: None,
        });
        *started += 1;
    }
    let current = status(workload);
    workload.status = match random.below(10) {
        0..=2 => None,
        3 => Some(PodStatus {
            observed: false,
            ..current
        }),
        4 => Some(PodStatus {
            replicas: current.replicas + 1,
            updated: current.updated + 1,
            ..current
        }),
        _ => Some(current),
    };
}

/// The group with most of the ready and some of the other pods, and sometimes with a member that has no pod, or whose
/// name another member has too.
fn group(random: &mut Random, pods: &[Pod], started: u32, at: Moment) -> GroupReading {
    match random.below(20) {
        0 => return GroupReading::NotRead,
        1 => return GroupReading::Rebalancing { at },
        2 => {
            let why = "unreachable".into();
            return GroupReading::Unknown { at, why };
        }
        _ => {}
    }
    let mut members = Vec::new();
    for pod in pods {
        let is_member = match pod.state {
            PodState::Ready => !random.once_in(20),
            PodState::Draining | PodState::Overdue => random.once_in(2),
            PodState::NotReady | PodState::Unschedulable => random.once_in(10),
        };
        if is_member {
            members.push(member(random, pod.name.clone()));
        }
    }
    if random.once_in(12) {
        let name = format!("p{}", random.below(started + 2));
        members.push(member(random, name.as_str().into()));
    }
    GroupReading::Stable { at, members }
}

fn member(random: &mut Random, pod: PodName) -> Member {
    let work = match random.below(8) {
        0 => MemberWork::Task,
        1 => MemberWork::NoTask,
        _ => {
            let count = random.below(3);
            // Partition 12 does not exist, or is not known yet.
            let partitions = (0..count).map(|_| i32::try_from(random.below(13)).expect("a few"));
            MemberWork::Partitions(partitions.collect())
        }
    };
    Member { pod, work }
}
