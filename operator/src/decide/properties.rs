//! Properties of decisions, checked on random situations.

use std::cmp::Reverse;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::scene::{execute, status};
use super::*;

const NOW: Moment = Moment::from_millis(1_000_000);

/// At least 4,000 cases; `PROPTEST_CASES` sets more.
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
            (1_u32..600, 1_u32..200).prop_map(|(within, task)| Target::DrainDeadline {
                within_seconds: NonZeroU32::new(within).unwrap(),
                task_seconds: NonZeroU32::new(task).unwrap(),
            }),
            seconds(0..300).prop_map(|deadline| Target::StartDeadline { deadline }),
        ],
        mode in prop_oneof![4 => Just(Mode::Auto), 1 => Just(Mode::Paused), 1 => Just(Mode::DryRun)],
        stabilization in seconds(0..5),
        last_replica_stabilization in seconds(0..9),
        cooldown in seconds(0..5),
        rebalance_hold in seconds(0..5),
    ) -> Policy {
        Policy {
            limits: ReplicaLimits::new(min..=(min + more).max(1)).unwrap(),
            target,
            mode,
            stabilization,
            last_replica_stabilization,
            cooldown,
            rebalance_hold,
            stale_after: Duration::from_secs(30),
        }
    }
}

fn lags() -> impl Strategy<Value = Vec<u64>> {
    let messages = prop_oneof![4 => Just(0), 4 => 1_u64..4, 1 => any::<u64>()];
    prop::collection::vec(messages, 0..12)
}

/// Estimates, and queues of twelve partitions whose numbers of messages may differ from the lag.
fn times() -> impl Strategy<Value = (Estimates, Option<Queue>)> {
    let estimates =
        (seconds(0..200), seconds(0..100), seconds(0..200)).prop_map(|(startup, task, task_tail)| {
            Estimates {
                startup,
                task,
                task_tail,
            }
        });
    let arrivals = prop::collection::vec((0_u64..300, 1_u64..3), 0..3);
    let running = (0_u64..300, prop::option::of(0_u8..=100)).prop_map(|(ago, percent)| RunningTask {
        since: before(ago),
        percent,
    });
    let partitions = prop::collection::vec((arrivals, prop::option::of(running)), 12);
    let queues = partitions.prop_map(|partitions| {
        let numbered = (0..).zip(partitions);
        let partitions = numbered.map(|(partition, (mut arrivals, running))| {
            arrivals.sort_by_key(|(ago, _)| Reverse(*ago));
            let arrivals = arrivals.into_iter().map(|(ago, count)| (before(ago), count));
            PartitionQueue {
                partition,
                arrivals: arrivals.collect(),
                running,
            }
        });
        Queue {
            partitions: partitions.collect(),
        }
    });
    (estimates, prop::option::weighted(0.8, queues))
}

/// The queue of the partitions with messages.
fn with_lag(queue: Option<Queue>, lag: &[u64]) -> Option<Queue> {
    let mut queue = queue?;
    let messages = |partition: i32| usize::try_from(partition).ok().and_then(|index| lag.get(index));
    queue
        .partitions
        .retain(|queue| messages(queue.partition).is_some_and(|messages| *messages > 0));
    Some(queue)
}

fn states() -> impl Strategy<Value = (PodState, CostAnnotation)> {
    let state = prop_oneof![
        12 => Just(PodState::Ready),
        2 => Just(PodState::NotReady),
        2 => Just(PodState::Unschedulable),
        2 => Just(PodState::Draining),
        1 => Just(PodState::Overdue),
    ];
    (
        state,
        prop_oneof![Just(CostAnnotation::Present), Just(CostAnnotation::Absent)],
    )
}

/// Possible contents of a Deployment's status.
#[derive(Debug, Clone, Copy)]
enum Reported {
    /// No status: there is no controller.
    Nothing,
    /// The current numbers.
    Truth,
    /// The numbers of an older spec.
    Older,
}

/// Pods as observed, mostly of one ReplicaSet, and the number of pods that exist, are not observed yet and have not
/// joined.
fn workloads() -> impl Strategy<Value = (Workload, usize)> {
    let pods = prop::collection::vec((states(), any::<bool>()), 0..12);
    let two_sets = prop::bool::weighted(0.2);
    let reported = prop_oneof![
        4 => Just(Reported::Nothing),
        4 => Just(Reported::Truth),
        1 => Just(Reported::Older),
    ];
    (
        pods,
        two_sets,
        0_u32..3,
        reported,
        prop_oneof![4 => Just(0_usize), 1 => 1_usize..3],
        prop::option::of((0_u64..200).prop_map(before)),
    )
        .prop_map(|(pods, two_sets, missing, reported, unseen, created)| {
            let named = pods.into_iter().enumerate();
            let pods: Vec<Pod> = named
                .map(|(n, ((state, cost_annotation), is_new))| Pod {
                    name: format!("p{n}").as_str().into(),
                    state,
                    cost_annotation,
                    replica_set: if two_sets && is_new { "set-2" } else { "set-1" }.into(),
                    created,
                })
                .collect();
            let live = pods.iter().filter(|pod| pod.state.is_live()).count();
            let mut workload = Workload {
                replicas: u32::try_from(live).unwrap() + missing,
                pods,
                status: None,
            };
            let observed = |observed| PodStatus {
                observed,
                ..status(&with_unseen(&workload, unseen))
            };
            workload.status = match reported {
                Reported::Nothing => None,
                Reported::Truth => Some(observed(true)),
                Reported::Older => Some(observed(false)),
            };
            // Without a status, an unobserved pod cannot be detected before it joins.
            (
                workload,
                if matches!(reported, Reported::Nothing) {
                    0
                } else {
                    unseen
                },
            )
        })
}

/// The workload with pods that are not observed yet.
fn with_unseen(workload: &Workload, unseen: usize) -> Workload {
    let mut workload = workload.clone();
    let pods = (0..unseen).map(|n| Pod {
        name: format!("unseen-{n}").as_str().into(),
        state: PodState::NotReady,
        cost_annotation: CostAnnotation::Absent,
        replica_set: "set-1".into(),
        created: None,
    });
    workload.pods.extend(pods);
    workload
}

/// The real pods: observed ones, unobserved ones, and one for each member without a pod.
fn truth(observation: &Observation, unseen: usize) -> Workload {
    let mut truth = with_unseen(&observation.workload, unseen);
    if let GroupReading::Stable { members, .. } = &observation.group {
        for member in members {
            if truth.pods.iter().all(|pod| pod.name != member.pod) {
                truth.pods.push(Pod {
                    name: member.pod.clone(),
                    state: PodState::Ready,
                    cost_annotation: CostAnnotation::Absent,
                    replica_set: "set-1".into(),
                    created: None,
                });
            }
        }
    }
    truth
}

fn groups() -> impl Strategy<Value = GroupReading> {
    let work = prop_oneof![
        6 => prop::collection::vec(0..14_i32, 0..3).prop_map(MemberWork::Partitions),
        1 => Just(MemberWork::Task),
        1 => Just(MemberWork::NoTask),
    ];
    let members = prop::collection::vec(prop::option::weighted(0.9, work.clone()), 12);
    let more = prop_oneof![
        6 => Just(Vec::new()),
        1 => prop::collection::vec((0_u32..20, work), 1..3),
    ];
    let members = (members, more).prop_map(|(work, more)| {
        let each = (0..).zip(work).filter_map(|(n, work)| Some((n, work?)));
        let members = each.chain(more).map(|(n, work)| Member {
            pod: format!("p{n}").as_str().into(),
            work,
        });
        GroupReading::Stable {
            at: NOW,
            members: members.collect(),
        }
    });
    prop_oneof![
        1 => Just(GroupReading::NotRead),
        1 => Just(GroupReading::Rebalancing { at: NOW }),
        1 => Just(GroupReading::Unknown { at: NOW, why: "unreachable".into() }),
        9 => members,
    ]
}

/// Reachable histories, and others.
fn histories() -> impl Strategy<Value = History> {
    let scale_down = prop_oneof![
        Just(ScaleDown::None),
        (0_u64..9, 0_u32..12).prop_map(|(ago, highest)| ScaleDown::Stabilizing {
            since: before(ago),
            highest
        }),
        (0_u32..12).prop_map(|goal| ScaleDown::Executing { goal }),
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
    let starting = prop::option::of(((0_u64..60).prop_map(before), 0_u32..12));
    (scale_down, ago(), ago(), ago(), idle, starting).prop_map(
        |(scale_down, last_change, rebalancing_since, annotated_at, idle, starting)| History {
            last_change,
            rebalancing_since,
            scale_down,
            idle,
            counted_at: Some((before(2), before(2))),
            annotated_at,
            starting,
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

fn observe(lag: &[u64], knowledge: Knowledge, workload: &Workload, group: &GroupReading) -> Observation {
    let lag = LagByPartition::from_messages(lag.iter().copied());
    let lag = match knowledge {
        Knowledge::Known => Lag::Known(lag),
        Knowledge::Partial => Lag::Partial {
            known: lag,
            missing: 1,
            why: "unreachable".into(),
        },
        Knowledge::Unknown => Lag::Unknown {
            why: "unreachable".into(),
        },
    };
    Observation {
        lag: LagReading { at: NOW, lag },
        group: group.clone(),
        workload: workload.clone(),
        conflict: None,
        refusal: None,
        estimates: Estimates::default(),
        queue: None,
    }
}

/// The group without members that have no pod.
fn members_with_pods(group: &GroupReading, workload: &Workload) -> GroupReading {
    let mut group = group.clone();
    if let GroupReading::Stable { members, .. } = &mut group {
        members.retain(|member| workload.pods.iter().any(|pod| pod.name == member.pod));
    }
    group
}

/// Names of members that hold, or may hold, a task, whether their pods are observed or not, and of ready pods outside
/// the group.
fn may_be_busy(observation: &Observation, lag: &[u64]) -> BTreeSet<PodName> {
    let GroupReading::Stable { members, .. } = &observation.group else {
        return BTreeSet::new();
    };
    let holds_a_task = |member: &&Member| match &member.work {
        MemberWork::Task => true,
        MemberWork::NoTask => false,
        MemberWork::Partitions(partitions) => partitions.iter().any(|partition| {
            let messages = usize::try_from(*partition).ok().and_then(|index| lag.get(index));
            messages != Some(&0)
        }),
    };
    let busy = members.iter().filter(holds_a_task).map(|member| &member.pod);
    let is_member = |pod: &Pod| members.iter().any(|member| member.pod == pod.name);
    let pods = observation.workload.pods.iter();
    let outside = pods.filter(|pod| pod.state == PodState::Ready && !is_member(pod));
    busy.chain(outside.map(|pod| &pod.name)).cloned().collect()
}

/// No pod that may hold a task is removed, whether it is observed or not.
fn removes_no_task(
    policy: &Policy,
    observation: &Observation,
    decision: &Decision,
    unseen: usize,
    lag: &[u64],
) -> Result<(), TestCaseError> {
    if policy.mode != Mode::Auto || decision.desired() >= observation.workload.replicas {
        return Ok(());
    }
    let before = truth(observation, unseen);
    let mut after = before.clone();
    decision.plan.iter().for_each(|write| execute(&mut after, write));
    let busy = may_be_busy(observation, lag);
    for (before, after) in before.pods.iter().zip(&after.pods) {
        let is_removed = before.state.is_live() && !after.state.is_live();
        prop_assert!(
            !(is_removed && busy.contains(&after.name)),
            "{} of {busy:?}: {}",
            after.name,
            decision.explanation
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn decisions_keep_their_guarantees(
        policy in policies(),
        lag in lags(),
        more in prop::collection::vec(0_u64..3, 12),
        knowledge in prop_oneof![4 => Just(Knowledge::Known), 1 => Just(Knowledge::Partial), 1 => Just(Knowledge::Unknown)],
        (workload, unseen) in workloads(),
        group in groups(),
        history in histories(),
        all_have_pods in prop::bool::weighted(0.7),
        refusal in prop::option::weighted(0.2, Just(Arc::<str>::from("the object store refuses a worker (s3:403)"))),
        (estimates, queue) in times(),
    ) {
        let group = if all_have_pods { members_with_pods(&group, &workload) } else { group };
        let queue = with_lag(queue, &lag);
        let observe = |lag: &[u64]| Observation {
            refusal: refusal.clone(),
            estimates,
            queue: queue.clone(),
            ..observe(lag, knowledge, &workload, &group)
        };
        let observation = observe(&lag);
        let decision = decide(&policy, &observation, history.clone(), NOW);
        let (desired, current) = (decision.desired(), workload.replicas);

        // Within the limits, and no pod is removed without being known to be idle.
        prop_assert!(desired <= current.max(policy.limits.max()));
        prop_assert!(desired >= current.min(policy.limits.min()));
        if !matches!(knowledge, Knowledge::Known) || !matches!(group, GroupReading::Stable { .. }) {
            prop_assert!(desired >= current, "{}", decision.explanation);
        }
        if desired < current && policy.mode == Mode::Auto {
            // Nothing is annotated in the plan that removes pods.
            prop_assert_eq!(&decision.plan, &vec![Write::SetReplicas(desired)]);
        }
        if desired > current && matches!(knowledge, Knowledge::Known) {
            let with_messages = u32::try_from(lag.iter().filter(|messages| **messages > 0).count()).unwrap();
            prop_assert!(desired <= with_messages.max(policy.limits.min()));
        }
        if observation.refusal.is_some() {
            prop_assert!(desired <= current.max(policy.limits.min()).max(1), "{}", decision.explanation);
        }
        // To zero only when the lag is 0.
        if desired == 0 && current > 0 {
            prop_assert!(lag.iter().all(|messages| *messages == 0));
        }

        removes_no_task(&policy, &observation, &decision, unseen, &lag)?;

        // There is always a reason, and replicas are written exactly when they change.
        prop_assert!(!decision.explanation.to_string().is_empty());
        let sets_replicas = |decision: &Decision| {
            decision.plan.iter().any(|write| matches!(write, Write::SetReplicas(_)))
        };
        prop_assert_eq!(sets_replicas(&decision), desired != current && policy.mode != Mode::DryRun);
        prop_assert!(policy.mode == Mode::Auto || !sets_replicas(&decision));

        // More messages never mean fewer replicas.
        let busier: Vec<u64> = lag.iter().zip(&more).map(|(messages, more)| messages.saturating_add(*more)).collect();
        let busier = observe(&busier);
        let with_more = decide(&policy, &busier, history, NOW);
        prop_assert!(with_more.desired() >= desired, "{} / {}", decision.explanation, with_more.explanation);

        // Executed write by write with a decision after each, replicas are set once, and the reason for a scale-up does
        // not become a cooldown.
        let (mut now, mut next) = (observation.clone(), decision.clone());
        for _ in 0..4 {
            let Some(write) = next.execute_next(NOW, |write| execute(&mut now.workload, write)) else { break };
            next = decide(&policy, &now, next.history, NOW);
            if matches!(write, Write::SetReplicas(_)) {
                prop_assert!(!sets_replicas(&next), "{} / {}", decision.explanation, next.explanation);
                prop_assert!(desired < current || next.reason() != Reason::CoolingDown, "{}", next.explanation);
            }
        }
        prop_assert_eq!(&next.plan, &Vec::new(), "{} / {}", decision.explanation, next.explanation);
        let advised = if policy.mode == Mode::DryRun { desired } else { now.workload.replicas };
        prop_assert_eq!(next.desired(), advised);

        // A plan that is executed without deciding again gives the same replicas.
        let (mut planned, mut complete) = (workload, decision);
        while complete.execute_next(NOW, |write| execute(&mut planned, write)).is_some() {}
        prop_assert_eq!(planned.replicas, now.workload.replicas);
    }
    /// As above for pools in a scale-down, which the other test covers rarely.
    #[test]
    fn a_scale_down_removes_no_task(
        policy in policies(),
        lag in prop::collection::vec(prop_oneof![5 => Just(0_u64), 1 => Just(1_u64)], 12),
        (workload, unseen) in workloads(),
        group in groups(),
        history in histories(),
        all_have_pods in prop::bool::weighted(0.8),
        is_executing in any::<bool>(),
        (estimates, queue) in times(),
    ) {
        let policy = Policy { mode: Mode::Auto, cooldown: Duration::ZERO, ..policy };
        let group = if all_have_pods { members_with_pods(&group, &workload) } else { group };
        // Otherwise it has not begun, and workers that start are removed.
        let scale_down = if is_executing {
            ScaleDown::Executing { goal: 0 }
        } else {
            ScaleDown::Stabilizing { since: before(1), highest: 0 }
        };
        let history = History {
            scale_down,
            last_change: None,
            annotated_at: Some(before(1)),
            starting: Some((before(30), 0)),
            ..history
        };
        let observation = Observation {
            estimates,
            queue: with_lag(queue, &lag),
            ..observe(&lag, Knowledge::Known, &workload, &group)
        };
        let decision = decide(&policy, &observation, history, NOW);
        removes_no_task(&policy, &observation, &decision, unseen, &lag)?;
    }
}
