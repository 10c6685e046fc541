//! What must hold in every situation, tried on made-up ones.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::scene::apply;
use super::*;

const NOW: Moment = Moment::from_millis(1_000_000);

/// Enough for each run of the tests; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(4_000)
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

prop_compose! {
    fn policies()(
        min in 0_u32..6,
        more in 0_u32..10,
        target in prop_oneof![
            (1_u32..5).prop_map(|tasks| Target::TasksPerReplica(NonZeroU32::new(tasks).unwrap())),
            (1_u32..600, 1_u32..200).prop_map(|(within, task)| Target::DrainWithin {
                within_seconds: NonZeroU32::new(within).unwrap(),
                task_seconds: NonZeroU32::new(task).unwrap(),
            }),
        ],
        mode in prop_oneof![4 => Just(Mode::Active), 1 => Just(Mode::Paused), 1 => Just(Mode::RecommendOnly)],
        stabilisation in seconds(0..5),
        settle in seconds(0..5),
        rebalance_hold in seconds(0..5),
    ) -> Policy {
        Policy {
            bounds: Bounds::new(min..=(min + more).max(1)).unwrap(),
            target,
            mode,
            stabilisation,
            settle,
            rebalance_hold,
            stale_after: Duration::from_secs(30),
        }
    }
}

fn works() -> impl Strategy<Value = Vec<u64>> {
    let messages = prop_oneof![4 => Just(0), 4 => 1_u64..4, 1 => any::<u64>()];
    prop::collection::vec(messages, 0..12)
}

fn states() -> impl Strategy<Value = (PodState, Marked)> {
    let state = prop_oneof![
        6 => Just(PodState::Ready),
        1 => Just(PodState::NotReady),
        1 => Just(PodState::Unschedulable),
        1 => Just(PodState::Draining),
    ];
    (state, prop_oneof![Just(Marked::Yes), Just(Marked::No)])
}

fn workloads() -> impl Strategy<Value = Workload> {
    (prop::collection::vec(states(), 0..12), 0_u32..3).prop_map(|(states, missing)| {
        let named = states.into_iter().enumerate();
        let pods: Vec<Pod> = named
            .map(|(n, (state, marked))| Pod {
                name: format!("p{n}").as_str().into(),
                state,
                marked,
            })
            .collect();
        let live = pods.iter().filter(|pod| pod.state != PodState::Draining).count();
        Workload {
            replicas: u32::try_from(live).unwrap() + missing,
            pods,
        }
    })
}

fn groups() -> impl Strategy<Value = GroupReading> {
    let holds = prop_oneof![
        6 => prop::collection::vec(0..14_i32, 0..3).prop_map(Holds::Partitions),
        1 => Just(Holds::Task),
        1 => Just(Holds::NoTask),
    ];
    let members = prop::collection::vec(prop::option::weighted(0.9, holds), 12).prop_map(|holds| {
        let named = holds.into_iter().enumerate();
        let members = named.filter_map(|(n, holds)| {
            Some(Member {
                pod: format!("p{n}").as_str().into(),
                holds: holds?,
            })
        });
        GroupReading::Stable {
            at: NOW,
            members: members.collect(),
        }
    });
    prop_oneof![
        1 => Just(GroupReading::NotRead),
        1 => Just(GroupReading::Rebalancing { at: NOW }),
        1 => Just(GroupReading::Unknown { at: NOW, why: "away".into() }),
        9 => members,
    ]
}

/// Histories as they come about, and then some.
fn histories() -> impl Strategy<Value = History> {
    let scale_in = prop_oneof![
        Just(ScaleIn::None),
        (0_u64..9, 0_u32..12).prop_map(|(ago, highest)| ScaleIn::Stabilising {
            since: before(ago),
            highest
        }),
        (0_u32..12).prop_map(|goal| ScaleIn::Executing { goal }),
    ];
    let ago = || prop::option::of((0_u64..9).prop_map(before));
    let idle = prop::collection::vec(1_u8..=2, 12).prop_map(|readings| {
        let named = readings.into_iter().enumerate();
        let idle = named.map(|(n, readings)| history::IdlePod {
            name: format!("p{n}").as_str().into(),
            readings,
        });
        let mut idle = idle.collect::<Vec<_>>();
        idle.sort_by(|a, b| a.name.cmp(&b.name));
        idle
    });
    (scale_in, ago(), ago(), ago(), idle).prop_map(
        |(scale_in, last_change, rebalancing_since, marked_at, idle)| History {
            last_change,
            rebalancing_since,
            scale_in,
            idle,
            counted: Some((before(2), before(2))),
            marked_at,
        },
    )
}

fn before(seconds: u64) -> Moment {
    Moment::from_millis(NOW.as_millis() - 1_000 * seconds)
}

#[derive(Debug, Clone, Copy)]
enum Knowledge {
    Known,
    Partial,
    Unknown,
}

fn observe(work: &[u64], knowledge: Knowledge, workload: &Workload, group: &GroupReading) -> Observation {
    let work = Work::of(work.iter().copied());
    let lag = match knowledge {
        Knowledge::Known => Lag::Known(work),
        Knowledge::Partial => Lag::Partial {
            known: work,
            missing: 1,
            why: "away".into(),
        },
        Knowledge::Unknown => Lag::Unknown { why: "away".into() },
    };
    Observation {
        lag: LagReading { at: NOW, lag },
        group: group.clone(),
        workload: workload.clone(),
        conflict: None,
        held: None,
    }
}

/// Pods that hold, or may hold, a partition with work.
fn may_be_busy(observation: &Observation, work: &[u64]) -> usize {
    let GroupReading::Stable { members, .. } = &observation.group else {
        return 0;
    };
    let busy = |pod: &&Pod| {
        let member = members.iter().find(|member| member.pod == pod.name);
        match member.map(|member| &member.holds) {
            None => pod.state == PodState::Ready,
            Some(Holds::Task) => true,
            Some(Holds::NoTask) => false,
            Some(Holds::Partitions(partitions)) => partitions.iter().any(|partition| {
                let messages = usize::try_from(*partition).ok().and_then(|index| work.get(index));
                messages != Some(&0)
            }),
        }
    };
    fleet::live(&observation.workload).filter(busy).count()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn decisions_keep_their_promises(
        policy in policies(),
        work in works(),
        more in prop::collection::vec(0_u64..3, 12),
        knowledge in prop_oneof![4 => Just(Knowledge::Known), 1 => Just(Knowledge::Partial), 1 => Just(Knowledge::Unknown)],
        workload in workloads(),
        group in groups(),
        history in histories(),
        held in prop::option::weighted(0.2, Just(Arc::<str>::from("the object store refuses a worker (s3:403)"))),
    ) {
        let observe = |work: &[u64]| Observation { held: held.clone(), ..observe(work, knowledge, &workload, &group) };
        let observation = observe(&work);
        let decision = decide(&policy, &observation, history.clone(), NOW);
        let (desired, current) = (decision.desired(), workload.replicas);

        // Bounds, and nobody is taken away without being known to be idle.
        prop_assert!(desired <= current.max(policy.bounds.max()));
        prop_assert!(desired >= current.min(policy.bounds.min()));
        if !matches!(knowledge, Knowledge::Known) || !matches!(group, GroupReading::Stable { .. }) {
            prop_assert!(desired >= current, "{}", decision.explanation);
        }
        if desired < current {
            prop_assert!(desired as usize >= may_be_busy(&observation, &work), "{}", decision.explanation);
            prop_assert!(!fleet::marked(&workload).any(|pod| decision.writes.unmark.contains(&pod.name)));
        }
        if desired > current && matches!(knowledge, Knowledge::Known) {
            let with_work = u32::try_from(work.iter().filter(|messages| **messages > 0).count()).unwrap();
            prop_assert!(desired <= with_work.max(policy.bounds.min()));
        }
        if observation.held.is_some() {
            prop_assert!(desired <= current.max(policy.bounds.min()).max(1), "{}", decision.explanation);
        }
        // To zero only when nothing waits.
        if desired == 0 && current > 0 {
            prop_assert!(work.iter().all(|messages| *messages == 0));
        }

        // Who goes is idle, also by the cluster's own order.
        let mut after = observation.clone();
        apply(&mut after.workload, &decision.writes);
        if policy.mode == Mode::Active && desired < current {
            let staying = fleet::live(&after.workload).count();
            let left = Observation { workload: after.workload.clone(), ..observation.clone() };
            prop_assert_eq!(may_be_busy(&left, &work), may_be_busy(&observation, &work));
            prop_assert!(staying <= desired as usize);
        }

        // There is always a reason, and never writes without one.
        prop_assert!(!decision.explanation.to_string().is_empty());
        prop_assert_eq!(
            decision.writes.replicas.is_some(),
            desired != current && policy.mode != Mode::RecommendOnly
        );
        prop_assert!(policy.mode == Mode::Active || decision.writes.replicas.is_none());

        // More work never means fewer replicas.
        let busier: Vec<u64> = work.iter().zip(&more).map(|(messages, more)| messages.saturating_add(*more)).collect();
        let busier = observe(&busier);
        let with_more = decide(&policy, &busier, history, NOW);
        prop_assert!(with_more.desired() >= desired, "{} / {}", decision.explanation, with_more.explanation);

        // Carried out and decided again, nothing changes.
        let again = decide(&policy, &after, decision.history.clone(), NOW);
        prop_assert_eq!(again.writes.replicas, None, "{} / {}", decision.explanation, again.explanation);
        let advised = if policy.mode == Mode::RecommendOnly { desired } else { after.workload.replicas };
        prop_assert_eq!(again.desired(), advised);
    }
}
