use super::*;
use crate::decide::{LagSummary, Limit, PodCounts, ReplicaLimits};
use crate::plan::Problem;

fn explanation(reason: Reason) -> Explanation {
    Explanation {
        reason,
        decision_reason: reason,
        limit: Limit::None,
        lag: Some(LagSummary {
            messages: 24,
            partitions_with_work: 24,
            partitions: 24,
            missing: 0,
        }),
        need: Some(24),
        limited_need: Some(8),
        start: None,
        current: 0,
        desired: 8,
        pods: PodCounts::default(),
        limits: ReplicaLimits::new(0..=8).expect("limits"),
        stabilization: Duration::from_secs(120),
        why: Some("no broker answers".into()),
    }
}

fn facts(explanation: &Explanation) -> RoleFacts<'_> {
    RoleFacts {
        problems: &[],
        role: Role::Processor,
        explanation,
        anomalies: &[],
        scaled: None,
        adopted: None,
    }
}

fn at(seconds: f64) -> Moment {
    Moment::default() + Duration::from_secs_f64(seconds)
}

/// Times and reasons of the events about a role that repeats this decision every two seconds for 25 minutes.
fn event_times(explanation: &Explanation) -> Vec<(u64, &'static str)> {
    let mut policy = EventPolicy::default();
    let mut events = Vec::new();
    for second in (0..1_500_u32).step_by(2) {
        let texts = policy.role(&facts(explanation), at(second.into()));
        events.extend(texts.iter().map(|text| (u64::from(second), text.reason)));
    }
    events
}

#[test]
fn lasting_reasons_get_an_event_every_ten_minutes_and_transient_ones_after_a_minute() {
    let name = Reason::name;
    for reason in Reason::ALL {
        let events = event_times(&explanation(reason));
        let expected = match reason {
            Reason::LimitedByMaxReplicas | Reason::LimitedByPartitions | Reason::Conflict => {
                vec![(0, name(reason)), (600, name(reason)), (1_200, name(reason))]
            }
            Reason::HeldUnknownLag
            | Reason::HeldPartialLag
            | Reason::HeldUnknownMembers
            | Reason::HeldUnknownPods
            | Reason::HeldByDependency => {
                vec![(60, name(reason)), (660, name(reason)), (1_260, name(reason))]
            }
            _ => Vec::new(),
        };
        assert_eq!(events, expected, "{reason}");
    }
}

#[test]
fn a_hold_shorter_than_a_minute_gets_no_event() {
    let (held, covered) = (
        explanation(Reason::HeldUnknownLag),
        explanation(Reason::BacklogCovered),
    );
    let mut policy = EventPolicy::default();
    for second in 0..300_u32 {
        let decided = if second % 50 == 49 { &covered } else { &held };
        assert_eq!(policy.role(&facts(decided), at(second.into())), []);
    }
}

fn scaled(policy: &mut EventPolicy, from: u32, to: u32, seconds: f64) -> Vec<String> {
    let explanation = Explanation {
        current: from,
        desired: to,
        ..explanation(Reason::LimitedByMaxReplicas)
    };
    let facts = RoleFacts {
        scaled: Some(Scaled { from, to }),
        ..facts(&explanation)
    };
    let texts = policy.role(&facts, at(seconds));
    assert!(texts.iter().all(|text| text.action == "Scale"), "{texts:?}");
    texts.into_iter().map(|text| text.note).collect()
}

#[test]
fn every_scaling_gets_one_event_with_its_reason_and_limit() {
    let mut policy = EventPolicy::default();
    let note = "processor: scaled from 0 to 8: 24 messages on 24 of 24 partitions need 24 replicas; limited by \
         maxReplicas (8)";
    assert_eq!(scaled(&mut policy, 0, 8, 0.0), [note]);
    assert_eq!(
        policy.role(&facts(&explanation(Reason::LimitedByMaxReplicas)), at(5.0)),
        []
    );
    assert_eq!(scaled(&mut policy, 8, 3, 10.0).len(), 1);
    assert_eq!(scaled(&mut policy, 3, 8, 20.0).len(), 1);
}

#[test]
fn scalings_within_the_merge_time_become_one_event() {
    let mut policy = EventPolicy::default();
    assert_eq!(scaled(&mut policy, 0, 2, 0.0).len(), 1);
    assert_eq!(scaled(&mut policy, 2, 4, 0.5), Vec::<String>::new());
    assert_eq!(scaled(&mut policy, 4, 8, 1.0), Vec::<String>::new());
    let later = policy.role(&facts(&explanation(Reason::BacklogCovered)), at(2.0));
    assert_eq!(later.len(), 1);
    assert!(
        later[0].note.starts_with("processor: scaled from 2 to 8: "),
        "{later:?}"
    );
    // Scaling down and back up within the merge time needs no event.
    assert_eq!(scaled(&mut policy, 8, 4, 3.0), Vec::<String>::new());
    assert_eq!(scaled(&mut policy, 4, 8, 3.5), Vec::<String>::new());
    assert_eq!(
        policy.role(&facts(&explanation(Reason::BacklogCovered)), at(9.0)),
        []
    );
}

#[test]
fn unschedulable_pods_get_an_event_after_a_minute_whatever_the_reason() {
    let mut explanation = explanation(Reason::BacklogCovered);
    explanation.pods.unschedulable = 3;
    let events = event_times(&explanation);
    assert_eq!(
        events,
        [
            (60, "Unschedulable"),
            (660, "Unschedulable"),
            (1_260, "Unschedulable")
        ]
    );
}

#[test]
fn offset_anomalies_get_one_event_for_all_partitions() {
    let explanation = explanation(Reason::BacklogCovered);
    let anomalies: Vec<OffsetAnomaly> = (0..5)
        .map(|partition| OffsetAnomaly::BeyondEnd {
            partition,
            committed: 9,
            end: 4,
        })
        .chain([OffsetAnomaly::Recreated])
        .collect();
    let facts = RoleFacts {
        anomalies: &anomalies,
        ..facts(&explanation)
    };
    let texts = EventPolicy::default().role(&facts, at(0.0));
    let reasons: Vec<_> = texts.iter().map(|text| text.reason).collect();
    assert_eq!(reasons, ["OffsetBeyondEnd", "TopicRecreated"]);
    assert!(
        texts[0]
            .note
            .ends_with("counted from the start, and 4 more partitions"),
        "{texts:?}"
    );
}

#[test]
fn initialized_offsets_get_an_event() {
    let adoption = OffsetsStatus {
        topic_id: "t".into(),
        cluster_id: "c".into(),
        consumer_group: "g".into(),
        committed: Vec::new(),
        workers_joined: false,
        partitions: 24,
        initial_offset: crate::crd::InitialOffset::Latest,
        initialized_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
    };
    let explanation = explanation(Reason::BacklogCovered);
    let facts = RoleFacts {
        adopted: Some(&adoption),
        ..facts(&explanation)
    };
    let texts = EventPolicy::default().role(&facts, at(0.0));
    assert_eq!(texts.len(), 1);
    assert_eq!(
        texts[0].note,
        "processor: the consumer group's offsets were initialized on 24 partitions (Latest); 24 messages are \
         included"
    );
}

#[test]
fn a_new_problem_gets_an_event_immediately_and_a_thousand_are_limited() {
    let mut policy = EventPolicy::default();
    let mut event_for = |problem: &str, seconds: f64| {
        let problems = Problems(vec![Problem {
            field: "spec.processor.model".into(),
            problem: problem.into(),
            fix: "name another".into(),
        }]);
        policy.pool(PoolFact::InvalidSpec(&problems), at(seconds))
    };
    let first = event_for("is none", 0.0).expect("an event");
    assert_eq!(
        (first.reason, &*first.note),
        ("InvalidSpec", "spec.processor.model: is none; fix: name another")
    );
    assert_eq!(event_for("is none", 599.0), None);
    assert!(event_for("is another", 599.0).is_some());
    assert!(event_for("is none", 600.0).is_some());
    let many = (0..1_000).filter(|number| event_for(&number.to_string(), 601.0).is_some());
    assert_eq!(many.count(), MAX_REMEMBERED - 2);
    let missing = PoolFact::SecretMissing {
        what: "secret kafka-user has no key password",
    };
    let refused = PoolFact::IdentityRefused {
        why: "the broker is not allowed",
    };
    let invalid = PoolFact::InvalidConnection {
        why: "the private key is encrypted",
    };
    for (fact, reason) in [
        (missing, "SecretMissing"),
        (refused, "IdentityRefused"),
        (invalid, "InvalidConnection"),
    ] {
        let event = EventPolicy::default().pool(fact, at(0.0));
        assert_eq!(event.expect("an event").reason, reason);
    }
}

#[test]
fn each_problem_of_the_api_gets_an_event_every_ten_minutes() {
    let mut policy = EventPolicy::default();
    let missing = WorkloadProblem::new("SecretMissing", Some("Secret media/api does not exist"));
    let waiting = WorkloadProblem::new("CreateContainerConfigError", Some("secret \"api\" not found"));
    let mut events = |problems: &[WorkloadProblem], seconds: f64| {
        let texts = policy.api(problems, at(seconds)).into_iter();
        texts.map(|text| (text.reason, text.note)).collect::<Vec<_>>()
    };
    let first = "api: SecretMissing: Secret media/api does not exist".to_owned();
    let missing = [missing];
    assert_eq!(events(&missing, 0.0), [("ApiCannotRun", first)]);
    assert!(events(&missing, 599.0).is_empty());
    let second = "api: CreateContainerConfigError: secret \"api\" not found".to_owned();
    let both = [missing[0].clone(), waiting];
    assert_eq!(events(&both, 599.0), [("ApiCannotRun", second)]);
    assert_eq!(events(&missing, 600.0).len(), 1);
}

#[test]
fn a_note_fits_the_api_servers_limit() {
    let text = EventText::new(EventType::Normal, "A", "B", "ü".repeat(2_000));
    assert!(text.note.len() <= MAX_NOTE_BYTES && text.note.ends_with("ü…"));
}
