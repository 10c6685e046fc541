//! Statuses as people read them, and when they are written.

use std::num::NonZeroU32;

use super::*;
use crate::decide::{
    Activity, Bound, Bounds, GroupReading, History, LagReading, Mode, Moment, Observation, Pod, PodName,
    PodState, Policy, Reason, Work, Workload, decide,
};
use crate::observe::dependencies::Dependency;
use crate::plan::Problem;

fn time(text: &str) -> Time {
    serde_json::from_value(serde_json::Value::String(text.into())).expect("a time")
}

fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy {
        bounds: Bounds::new(0..=8).expect("in order"),
        target: Target::DrainWithin {
            within_seconds: NonZeroU32::new(90).expect("not 0"),
            task_seconds: NonZeroU32::new(90).expect("not 0"),
        },
        mode: Mode::Active,
        stabilisation: seconds(120),
        settle: seconds(2),
        rebalance_hold: seconds(25),
        stale_after: seconds(16),
    }
}

fn report(role: Role, lag: Lag, ready: u32) -> RoleReport {
    let policy = policy();
    let pods = (0..ready).map(|number| Pod {
        name: PodName::from(&*format!("p{number}")),
        state: PodState::Ready,
        marked: crate::decide::Marked::No,
        replica_set: "set".into(),
    });
    let observation = Observation {
        lag: LagReading {
            at: Moment::default(),
            lag: lag.clone(),
        },
        group: GroupReading::NotRead,
        workload: Workload {
            replicas: ready,
            pods: pods.collect(),
            status: None,
        },
        conflict: None,
        held: None,
    };
    let mut explanation = decide(&policy, &observation, History::default(), Moment::default()).explanation;
    explanation.pods.activity = Some(Activity {
        busy: ready,
        ..Activity::default()
    });
    RoleReport {
        role,
        explanation,
        lag,
        flags: Vec::new(),
        last_known_at: Some(time("2026-01-01T00:00:00Z")),
        target: policy.target,
        adoption: None,
        troubles: Vec::new(),
        refusals: Vec::new(),
    }
}

fn known<const N: usize>(messages: [u64; N]) -> Lag {
    Lag::Known(Work::of(messages))
}

fn running(processor: Lag, ready: u32) -> PoolReport {
    PoolReport::Running(vec![
        report(Role::Processor, processor, ready),
        report(Role::Uploader, known([0; 8]), 0),
    ])
}

fn made(report: &PoolReport, before: Option<&SeparationPoolStatus>) -> SeparationPoolStatus {
    status(report, before, Some(3), &time("2026-01-01T00:00:05Z"))
}

#[test]
fn statuses_read_like_this() {
    insta::assert_json_snapshot!(
        "working",
        made(&running(known([2, 1, 0, 0, 0, 0, 0, 0]), 2), None)
    );
    let mut odd = report(
        Role::Processor,
        Lag::Partial {
            known: Work::of([9; 4]),
            missing: 2,
            why: "broker 2 is away".into(),
        },
        3,
    );
    odd.flags = vec![
        Flag::Recreated,
        Flag::BeyondEnd {
            partition: 1,
            committed: 99,
            end: 12,
        },
        Flag::Expired {
            partition: 2,
            messages: 4,
        },
    ];
    odd.explanation.pods.unschedulable = 2;
    insta::assert_json_snapshot!("odd", made(&PoolReport::Running(vec![odd]), None));
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let before = made(&running(known([1; 8]), 8), None);
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
fn a_refused_spec_says_what_to_fix_and_keeps_what_was_known() {
    let before = made(&running(known([1; 8]), 8), None);
    let problem = Problem {
        field: "spec.model".into(),
        problem: "a worker runs one model".into(),
        fix: "set exactly one of name and path".into(),
    };
    let after = made(&PoolReport::Refused(Problems(vec![problem])), Some(&before));
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
fn a_message_is_never_longer_than_the_api_server_takes() {
    let problem = |number| Problem {
        field: format!("spec.processor.podOverrides.é{number}"),
        problem: "there is no such field".into(),
        fix: "remove it".into(),
    };
    let problems = Problems((0..10_000).map(problem).collect());
    let after = made(&PoolReport::Refused(problems), None);
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
fn a_status_is_written_when_somebody_would_act_on_it_and_numbers_at_most_every_few_seconds() {
    let due = |before: &SeparationPoolStatus, after: &PoolReport, seconds| {
        write_due(
            Some(before),
            &made(after, Some(before)),
            Duration::from_secs(seconds),
        )
    };
    let before = made(&running(known([3; 8]), 8), None);
    assert_eq!(write_due(None, &before, Duration::ZERO), WriteDue::Yes);
    // Nothing changed, for however long, although lag was read again and again.
    let mut later = report(Role::Processor, known([3; 8]), 8);
    later.last_known_at = Some(time("2026-01-01T01:00:00Z"));
    let idle = report(Role::Uploader, known([0; 8]), 0);
    assert_eq!(
        due(&before, &PoolReport::Running(vec![later, idle]), 9_999),
        WriteDue::No
    );
    assert_eq!(due(&before, &running(known([3; 8]), 8), 9_999), WriteDue::No);
    // More waits, and the same is made of it.
    assert_eq!(due(&before, &running(known([4; 8]), 8), 1), WriteDue::No);
    assert_eq!(due(&before, &running(known([4; 8]), 8), 5), WriteDue::Yes);
    // Another reason.
    assert_eq!(due(&before, &running(known([1; 8]), 8), 0), WriteDue::Yes);
    let unknown = Lag::Unknown { why: "away".into() };
    assert_eq!(due(&before, &running(unknown, 8), 0), WriteDue::Yes);
}

#[test]
fn the_worst_refusal_is_the_reason_and_without_offsets_nothing_is_known_of_them() {
    let condition = |roles: Vec<RoleReport>| {
        let status = made(&PoolReport::Running(roles), None);
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

    let unread = report(Role::Processor, Lag::Unknown { why: "away".into() }, 1);
    let (status, reason, _) = condition(vec![unread]);
    assert_eq!((&*status, &*reason), ("Unknown", "PartitionsUnreadable"));
}

#[test]
fn every_bound_that_limits_is_a_reason_of_its_own() {
    for (bound, reason) in [
        (Bound::Max, "MaxReplicas"),
        (Bound::Partitions, "PartitionsWithWork"),
        (Bound::Draining, "DrainingWorkers"),
        (Bound::Unschedulable, "Unschedulable"),
        (Bound::Dependency, "Dependency"),
    ] {
        let mut limited = report(Role::Processor, known([1; 8]), 8);
        limited.explanation.bound = bound;
        let status = made(&PoolReport::Running(vec![limited]), None);
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "ScalingLimited");
        assert_eq!(found.map(|condition| &*condition.reason), Some(reason));
    }
    let mut conflicting = report(Role::Processor, known([1; 8]), 8);
    conflicting.explanation.reason = Reason::Conflict;
    let status = made(&PoolReport::Running(vec![conflicting]), None);
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Conflict");
    assert_eq!(found.map(|condition| &*condition.status), Some("True"));
}
