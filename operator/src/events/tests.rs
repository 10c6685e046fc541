use super::*;
use crate::decide::{Bound, Bounds, PodCounts, WorkSeen};
use crate::plan::Problem;

fn explanation(reason: Reason) -> Explanation {
    Explanation {
        reason,
        under: reason,
        bound: Bound::None,
        work: Some(WorkSeen {
            messages: 24,
            partitions_with_work: 24,
            partitions: 24,
            missing: 0,
        }),
        need: Some(24),
        wanted: Some(8),
        current: 0,
        desired: 8,
        pods: PodCounts::default(),
        bounds: Bounds::new(0..=8).expect("bounds"),
        stabilisation: Duration::from_secs(120),
        why: Some("no broker answers".into()),
    }
}

fn facts(explanation: &Explanation) -> RoleFacts<'_> {
    RoleFacts {
        troubles: &[],
        role: Role::Processor,
        explanation,
        flags: &[],
        scaled: None,
        adopted: None,
    }
}

fn at(seconds: f64) -> Moment {
    Moment::default() + Duration::from_secs_f64(seconds)
}

/// When a role that decides like this every two seconds, for 25 minutes, is spoken of.
fn said_at(explanation: &Explanation) -> Vec<(u64, &'static str)> {
    let mut teller = Teller::default();
    let mut said = Vec::new();
    for second in (0..1_500_u32).step_by(2) {
        let texts = teller.role(&facts(explanation), at(second.into()));
        said.extend(texts.iter().map(|text| (u64::from(second), text.reason)));
    }
    said
}

#[test]
fn what_lasts_is_said_again_every_ten_minutes_and_what_may_pass_only_after_a_minute() {
    let name = Reason::name;
    for reason in Reason::ALL {
        let said = said_at(&explanation(reason));
        let expected = match reason {
            Reason::CappedByMax | Reason::CappedByPartitions | Reason::Conflict => {
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
        assert_eq!(said, expected, "{reason}");
    }
}

#[test]
fn a_hold_that_passes_within_a_minute_is_not_said() {
    let (held, met) = (explanation(Reason::HeldUnknownLag), explanation(Reason::NeedMet));
    let mut teller = Teller::default();
    for second in 0..300_u32 {
        let decided = if second % 50 == 49 { &met } else { &held };
        assert_eq!(teller.role(&facts(decided), at(second.into())), []);
    }
}

fn scaled(teller: &mut Teller, from: u32, to: u32, seconds: f64) -> Vec<String> {
    let explanation = Explanation {
        current: from,
        desired: to,
        ..explanation(Reason::CappedByMax)
    };
    let facts = RoleFacts {
        scaled: Some(Scaled { from, to }),
        ..facts(&explanation)
    };
    let texts = teller.role(&facts, at(seconds));
    assert!(texts.iter().all(|text| text.action == "Scale"), "{texts:?}");
    texts.into_iter().map(|text| text.note).collect()
}

#[test]
fn every_scaling_is_said_with_its_reason_and_the_bound_is_not_said_twice() {
    let mut teller = Teller::default();
    let note =
        "processor: from 0 to 8: 24 messages on 24 of 24 partitions deserve 24 workers; maxReplicas allows 8";
    assert_eq!(scaled(&mut teller, 0, 8, 0.0), [note]);
    assert_eq!(
        teller.role(&facts(&explanation(Reason::CappedByMax)), at(5.0)),
        []
    );
    assert_eq!(scaled(&mut teller, 8, 3, 10.0).len(), 1);
    assert_eq!(scaled(&mut teller, 3, 8, 20.0).len(), 1);
}

#[test]
fn scalings_that_follow_each_other_at_once_are_said_as_one() {
    let mut teller = Teller::default();
    assert_eq!(scaled(&mut teller, 0, 2, 0.0).len(), 1);
    assert_eq!(scaled(&mut teller, 2, 4, 0.5), Vec::<String>::new());
    assert_eq!(scaled(&mut teller, 4, 8, 1.0), Vec::<String>::new());
    let later = teller.role(&facts(&explanation(Reason::NeedMet)), at(2.0));
    assert_eq!(later.len(), 1);
    assert!(later[0].note.starts_with("processor: from 2 to 8: "), "{later:?}");
    // There and back again is nothing to speak of.
    assert_eq!(scaled(&mut teller, 8, 4, 3.0), Vec::<String>::new());
    assert_eq!(scaled(&mut teller, 4, 8, 3.5), Vec::<String>::new());
    assert_eq!(teller.role(&facts(&explanation(Reason::NeedMet)), at(9.0)), []);
}

#[test]
fn pods_without_a_node_are_said_after_a_minute_whatever_the_reason_is() {
    let mut explanation = explanation(Reason::NeedMet);
    explanation.pods.unschedulable = 3;
    let said = said_at(&explanation);
    assert_eq!(
        said,
        [
            (60, "Unschedulable"),
            (660, "Unschedulable"),
            (1_260, "Unschedulable")
        ]
    );
}

#[test]
fn odd_offsets_are_said_once_for_all_partitions() {
    let explanation = explanation(Reason::NeedMet);
    let flags: Vec<Flag> = (0..5)
        .map(|partition| Flag::BeyondEnd {
            partition,
            committed: 9,
            end: 4,
        })
        .chain([Flag::Recreated])
        .collect();
    let facts = RoleFacts {
        flags: &flags,
        ..facts(&explanation)
    };
    let texts = Teller::default().role(&facts, at(0.0));
    let reasons: Vec<_> = texts.iter().map(|text| text.reason).collect();
    assert_eq!(reasons, ["OffsetBeyondEnd", "TopicRecreated"]);
    assert!(
        texts[0].note.ends_with("counted from the start, and 4 more"),
        "{texts:?}"
    );
}

#[test]
fn an_adoption_is_said() {
    let adoption = AdoptionStatus {
        topic_id: "t".into(),
        cluster_id: "c".into(),
        consumer_group: "g".into(),
        offsets: Vec::new(),
        partitions: 24,
        policy: "latest".into(),
        at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
    };
    let explanation = explanation(Reason::NeedMet);
    let facts = RoleFacts {
        adopted: Some(&adoption),
        ..facts(&explanation)
    };
    let texts = Teller::default().role(&facts, at(0.0));
    assert_eq!(texts.len(), 1);
    assert_eq!(
        texts[0].note,
        "processor: the group's offsets were taken over on 24 partitions (latest)"
    );
}

#[test]
fn another_problem_is_said_at_once_and_a_thousand_of_them_are_not() {
    let mut teller = Teller::default();
    let mut tell = |problem: &str, seconds: f64| {
        let problems = Problems(vec![Problem {
            field: "spec.model".into(),
            problem: problem.into(),
            fix: "name another".into(),
        }]);
        teller.pool(PoolFact::InvalidSpec(&problems), at(seconds))
    };
    let first = tell("is none", 0.0).expect("said");
    assert_eq!(
        (first.reason, &*first.note),
        ("InvalidSpec", "spec.model: is none; fix: name another")
    );
    assert_eq!(tell("is none", 599.0), None);
    assert!(tell("is another", 599.0).is_some());
    assert!(tell("is none", 600.0).is_some());
    let many = (0..1_000).filter(|number| tell(&number.to_string(), 601.0).is_some());
    assert_eq!(many.count(), MOST_REMEMBERED - 2);
    let missing = PoolFact::SecretMissing {
        what: "secret kafka-user has no key password",
    };
    assert_eq!(
        Teller::default().pool(missing, at(0.0)).expect("said").reason,
        "SecretMissing"
    );
}

#[test]
fn a_note_is_no_longer_than_the_api_server_takes() {
    let text = EventText::new(Weight::Normal, "A", "B", "ü".repeat(2_000));
    assert!(text.note.len() <= LONGEST_NOTE && text.note.ends_with("ü…"));
}
