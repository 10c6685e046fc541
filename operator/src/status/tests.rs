//! Tests of the status and of when it is written.

mod situations;

use std::num::NonZeroU32;

use super::*;
use crate::crd::{EffectiveSettings, InitialOffset};
use crate::decide::{
    Activity, CostAnnotation, Estimates, GroupReading, History, LagReading, LearnedSummary, Limit, Mode,
    Moment, Observation, Pod, PodName, PodState, Policy, Reason, ReplicaLimits, Target, Workload, decide,
};
use crate::observe::OffsetAnomaly;
use crate::observe::dependencies::{Dependency, Refusal};
use crate::observe::workload::WorkloadProblem;
use crate::plan::{Problem, Problems};

fn time(text: &str) -> Time {
    serde_json::from_value(serde_json::Value::String(text.into())).expect("a time")
}

fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy {
        limits: ReplicaLimits::new(0..=8).expect("in order"),
        target: Target::DrainDeadline {
            within_seconds: NonZeroU32::new(90).expect("not 0"),
            task_seconds: NonZeroU32::new(90).expect("not 0"),
        },
        mode: Mode::Auto,
        stabilization: seconds(120),
        last_replica_stabilization: seconds(120),
        cooldown: seconds(2),
        rebalance_hold: seconds(25),
        stale_after: seconds(16),
    }
}

fn offsets() -> OffsetsStatus {
    OffsetsStatus {
        initialized_time: time("2026-01-01T00:00:00Z"),
        initial_offset: InitialOffset::Earliest,
        partitions: 8,
        cluster_id: "cluster".into(),
        topic_id: "topic".into(),
        consumer_group: "group".into(),
        committed: Vec::new(),
        workers_joined: false,
    }
}

/// A role with this many ready pods.
fn report(role: Role, lag: Lag, ready: u32) -> RoleReport {
    decided(role, policy(), observation(lag, ready))
}

fn observation(lag: Lag, ready: u32) -> Observation {
    let pods = (0..ready).map(|number| Pod {
        name: PodName::from(&*format!("p{number}")),
        state: PodState::Ready,
        cost_annotation: CostAnnotation::Absent,
        replica_set: "set".into(),
        created: None,
    });
    Observation {
        lag: LagReading {
            at: Moment::default(),
            lag,
        },
        group: GroupReading::NotRead,
        workload: Workload {
            replicas: ready,
            pods: pods.collect(),
            status: None,
        },
        conflict: None,
        refusal: None,
        estimates: Estimates::default(),
        queue: None,
    }
}

fn decided(role: Role, policy: Policy, observation: Observation) -> RoleReport {
    let mut explanation = decide(&policy, &observation, History::default(), Moment::default()).explanation;
    explanation.pods.activity = Some(Activity {
        busy: explanation.pods.ready,
        ..Activity::default()
    });
    RoleReport {
        role,
        explanation,
        lag: observation.lag.lag,
        anomalies: Vec::new(),
        last_known_time: Some(time("2026-01-01T00:00:00Z")),
        task: Some(Duration::from_secs(90)),
        learned: LearnedSummary::default(),
        offsets: Some(offsets()),
        pending: None,
        effective: EffectiveSettings::default(),
        problems: Vec::new(),
        refusals: Vec::new(),
    }
}

fn known<const N: usize>(messages: [u64; N]) -> Lag {
    Lag::Known(LagByPartition::from_messages(messages))
}

fn running(processor: Lag, ready: u32) -> PoolReport {
    of_roles(vec![
        report(Role::Processor, processor, ready),
        report(Role::Uploader, known([0; 8]), 0),
    ])
}

/// A pool without an API.
fn of_roles(roles: Vec<RoleReport>) -> PoolReport {
    PoolReport::Running {
        roles,
        stuck: Vec::new(),
        api: ApiReport::default(),
    }
}

fn status_of(report: &PoolReport, before: Option<&SeparationPoolStatus>) -> SeparationPoolStatus {
    status(report, before, Some(3), &time("2026-01-01T00:00:05Z"))
}

#[test]
fn status_snapshots() {
    insta::assert_json_snapshot!(
        "working",
        status_of(&running(known([2, 1, 0, 0, 0, 0, 0, 0]), 2), None)
    );
    let mut degraded = report(
        Role::Processor,
        Lag::Partial {
            known: LagByPartition::from_messages([9; 4]),
            missing: 2,
            why: "broker 2 is unreachable".into(),
        },
        3,
    );
    degraded.anomalies = vec![
        OffsetAnomaly::Recreated,
        OffsetAnomaly::BeyondEnd {
            partition: 1,
            committed: 99,
            end: 12,
        },
        OffsetAnomaly::Expired {
            partition: 2,
            messages: 4,
        },
    ];
    degraded.explanation.pods.unschedulable = 2;
    insta::assert_json_snapshot!("degraded", status_of(&of_roles(vec![degraded]), None));
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let before = status_of(&running(known([1; 8]), 8), None);
    let now = time("2026-01-01T00:01:00Z");
    let same = status(&running(known([3; 8]), 8), Some(&before), Some(3), &now);
    let times = |status: &SeparationPoolStatus| {
        let conditions = status.conditions.iter();
        conditions
            .map(|condition| condition.last_transition_time.clone())
            .collect::<Vec<_>>()
    };
    let limited = |status: &SeparationPoolStatus| {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "ScalingLimited");
        found.map(|condition| condition.status.clone())
    };
    assert_eq!(
        (limited(&before), limited(&same)),
        (Some("False".into()), Some("True".into()))
    );
    let changed = times(&before)
        .iter()
        .zip(times(&same))
        .filter(|(before, after)| *before != after)
        .count();
    assert_eq!(changed, 1);
}

#[test]
fn an_invalid_spec_names_the_fix_and_keeps_the_last_status() {
    let before = status_of(&running(known([1; 8]), 8), None);
    let problem = Problem {
        field: "spec.processor.model".into(),
        problem: "a worker runs one model".into(),
        fix: "set exactly one of name and path".into(),
    };
    let after = status_of(&PoolReport::Refused(Problems(vec![problem])), Some(&before));
    assert_eq!(after.processor, before.processor);
    let ready = after
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .expect("always there");
    assert_eq!((&*ready.status, &*ready.reason), ("False", "InvalidSpec"));
    assert!(
        ready.message.contains("fix: set exactly one"),
        "{}",
        ready.message
    );
}

#[test]
fn a_condition_message_fits_the_api_servers_limit() {
    let problem = |number| Problem {
        field: format!("spec.processor.podTemplate.é{number}"),
        problem: "is not a field of a pod template".into(),
        fix: "remove it".into(),
    };
    let problems = Problems((0..10_000).map(problem).collect());
    let after = status_of(&PoolReport::Refused(problems), None);
    let longest = after
        .conditions
        .iter()
        .map(|condition| condition.message.len())
        .max();
    assert_eq!(
        longest.map(|length| (8 * 1024..9 * 1024).contains(&length)),
        Some(true)
    );
}

#[test]
fn changed_conditions_are_written_immediately_and_changed_numbers_every_few_seconds() {
    let due = |before: &SeparationPoolStatus, after: &PoolReport, seconds| {
        write_due(
            Some(before),
            &status_of(after, Some(before)),
            Duration::from_secs(seconds),
        )
    };
    let before = status_of(&running(known([3; 8]), 8), None);
    assert_eq!(write_due(None, &before, Duration::MAX), WriteDue::Yes);
    assert_eq!(write_due(None, &before, Duration::ZERO), WriteDue::No);
    // Nothing changed, although lag was read many times.
    let mut later = report(Role::Processor, known([3; 8]), 8);
    later.last_known_time = Some(time("2026-01-01T01:00:00Z"));
    let idle = report(Role::Uploader, known([0; 8]), 0);
    assert_eq!(due(&before, &of_roles(vec![later, idle]), 9_999), WriteDue::No);
    assert_eq!(due(&before, &running(known([3; 8]), 8), 9_999), WriteDue::No);
    // More messages are queued, and the decision is the same.
    assert_eq!(due(&before, &running(known([4; 8]), 8), 1), WriteDue::No);
    assert_eq!(due(&before, &running(known([4; 8]), 8), 5), WriteDue::Yes);
    // Another reason.
    assert_eq!(due(&before, &running(known([1; 8]), 8), 0), WriteDue::Yes);
    let unknown = Lag::Unknown {
        why: "unreachable".into(),
    };
    assert_eq!(due(&before, &running(unknown, 8), 0), WriteDue::Yes);
}

#[test]
fn learned_times_are_written_with_other_numbers_only_and_have_the_time_of_their_last_change() {
    let learned = LearnedSummary {
        tasks: 120,
        task_seconds: 23,
        task_tail_seconds: 70,
        starts: 0,
        startup_seconds: 0,
    };
    let with_learned = |learned, queued| {
        let mut processor = report(Role::Processor, known([queued; 8]), 8);
        processor.learned = learned;
        of_roles(vec![processor, report(Role::Uploader, known([0; 8]), 0)])
    };
    let estimates = |status: &SeparationPoolStatus| status.processor.as_ref()?.estimates.clone();
    let before = status_of(&with_learned(LearnedSummary::default(), 3), None);
    assert_eq!(estimates(&before), None);

    let after = status_of(&with_learned(learned, 3), Some(&before));
    assert_eq!(write_due(Some(&before), &after, Duration::MAX), WriteDue::No);
    let first = estimates(&after).expect("learned times");
    assert_eq!((first.tasks, first.task_tail_seconds), (120, Some(70)));
    assert_eq!((first.starts, first.startup_seconds), (0, None));
    assert_eq!(super::learned(&first), learned);
    let fewer_queued = status_of(&with_learned(learned, 2), Some(&before));
    let due = write_due(Some(&before), &fewer_queued, Duration::MAX);
    assert_eq!(due, WriteDue::Yes);

    let at = |learned, before| {
        let later = time("2026-01-01T00:09:00Z");
        let status = status(&with_learned(learned, 3), Some(before), Some(3), &later);
        estimates(&status).expect("learned times").updated_time
    };
    assert_eq!(at(learned, &after), first.updated_time);
    let one_more = LearnedSummary {
        tasks: 121,
        ..learned
    };
    assert_eq!(at(one_more, &after), time("2026-01-01T00:09:00Z"));
}

#[test]
fn the_worst_refusal_is_the_reason_and_without_offsets_the_condition_is_unknown() {
    let condition = |roles: Vec<RoleReport>| {
        let status = status_of(&of_roles(roles), None);
        let mut conditions = status.conditions.into_iter();
        let found = conditions.find(|condition| condition.type_ == "DependenciesAvailable");
        let found = found.expect("always there");
        (found.status, found.reason, found.message)
    };
    let refusal = |dependency, message: &str| Refusal {
        dependency,
        message: message.to_owned(),
    };
    let mut processor = report(Role::Processor, known([1; 8]), 1);
    let mut uploader = report(Role::Uploader, known([1; 8]), 1);
    let (status, reason, _) = condition(vec![processor.clone(), uploader.clone()]);
    assert_eq!((&*status, &*reason), ("True", "NoProblems"));

    processor.refusals = vec![
        refusal(Dependency::Membership, "1 of 2 pods"),
        refusal(Dependency::Store, "s3:403"),
    ];
    uploader.refusals = vec![refusal(Dependency::Kafka, "kafka:29")];
    let (status, reason, message) = condition(vec![processor, uploader]);
    assert_eq!((&*status, &*reason), ("False", "KafkaRefused"));
    assert_eq!(
        message,
        "processor: 1 of 2 pods\nprocessor: s3:403\nuploader: kafka:29"
    );

    let unread = report(
        Role::Processor,
        Lag::Unknown {
            why: "unreachable".into(),
        },
        1,
    );
    let (status, reason, _) = condition(vec![unread]);
    assert_eq!((&*status, &*reason), ("Unknown", "PartitionsUnreadable"));
}

#[test]
fn a_pod_of_a_disabled_role_that_does_not_end_is_reported() {
    let stuck = WorkloadProblem::new("PodsStuckTerminating", Some("the details"));
    let report = PoolReport::Running {
        roles: vec![report(Role::Processor, known([0; 8]), 0)],
        stuck: vec![(Role::Uploader, stuck)],
        api: ApiReport::default(),
    };
    let conditions = status_of(&report, None).conditions;
    let degraded = conditions.iter().find(|condition| condition.type_ == "Degraded");
    let degraded = degraded.expect("always there");
    assert_eq!(
        (&*degraded.status, &*degraded.message),
        ("True", "uploader: PodsStuckTerminating: the details")
    );
}

#[test]
fn every_limit_has_its_own_reason() {
    for (limit, reason) in [
        (Limit::Max, "MaxReplicas"),
        (Limit::Partitions, "PartitionsWithWork"),
        (Limit::Draining, "DrainingWorkers"),
        (Limit::Unschedulable, "Unschedulable"),
        (Limit::Dependency, "Dependency"),
    ] {
        let mut limited = report(Role::Processor, known([1; 8]), 8);
        limited.explanation.limit = limit;
        let status = status_of(&of_roles(vec![limited]), None);
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "ScalingLimited");
        assert_eq!(found.map(|condition| &*condition.reason), Some(reason));
    }
    let mut conflicting = report(Role::Processor, known([1; 8]), 8);
    conflicting.explanation.reason = Reason::Conflict;
    let status = status_of(&of_roles(vec![conflicting]), None);
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "GroupConflict");
    assert_eq!(found.map(|condition| &*condition.status), Some("True"));
}
