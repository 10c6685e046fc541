use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::decide::{
    Activity, Estimates, Explanation, Lag, LagByPartition, LagSummary, Limit, PodCounts, Reason,
    ReplicaLimits, Target,
};
use crate::plan::{PoolId, Role};

fn pool(name: &str) -> PoolId {
    PoolId {
        namespace: "media".into(),
        name: name.into(),
    }
}

fn explanation(reason: Reason, activity: Option<Activity>) -> Explanation {
    Explanation {
        reason,
        decision_reason: reason,
        limit: Limit::None,
        lag: Some(LagSummary {
            messages: 12,
            partitions_with_work: 5,
            partitions: 24,
            missing: 0,
        }),
        need: Some(5),
        limited_need: Some(5),
        start: None,
        current: 2,
        desired: 5,
        pods: PodCounts {
            ready: 2,
            draining: 1,
            unschedulable: 0,
            activity,
        },
        limits: ReplicaLimits::new(0..=8).expect("limits"),
        stabilization: Duration::from_secs(120),
        why: None,
    }
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text()).expect("text")
}

#[track_caller]
fn has(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    assert!(
        text.lines().any(|other| other == line),
        "{line} is not in\n{text}"
    );
}

fn known() -> Lag {
    Lag::Known(LagByPartition::from_messages([12]))
}

/// A sample with this lag, read at this age, of a role whose target has no time.
fn sample(lag: &Lag, lag_age: Option<Duration>) -> RoleSample<'_> {
    RoleSample {
        lag,
        lag_age,
        oldest_age: None,
        non_members: 0,
        target: Target::TasksPerReplica(NonZeroU32::MIN),
        task: None,
    }
}

/// A target of ten minutes.
fn drain_deadline() -> Target {
    Target::DrainDeadline {
        within_seconds: NonZeroU32::new(600).expect("not 0"),
        task_seconds: NonZeroU32::new(90).expect("not 0"),
    }
}

const VOCALS: &str = r#"{namespace="media",pool="vocals",role="processor"}"#;

#[test]
fn a_decision_of_a_role_becomes_series() {
    let metrics = Metrics::new();
    let mut role = metrics.role(&pool("vocals"), Role::Processor);
    let activity = Activity {
        busy: 1,
        idle: 1,
        unknown: 1,
    };
    let lag = known();
    let sample = RoleSample {
        oldest_age: Some(Duration::from_secs(40)),
        non_members: 1,
        target: drain_deadline(),
        task: Some(Duration::from_secs(90)),
        ..sample(&lag, Some(Duration::from_millis(1_500)))
    };
    for reason in [Reason::BacklogCovered, Reason::LimitedByMaxReplicas] {
        role.decided(&explanation(reason, Some(activity)), &sample);
    }
    role.wrote_replicas(2, 5);
    for (name, value) in [
        ("lag_messages", "12"),
        ("lag_known", "1"),
        ("lag_age_seconds", "1.5"),
        ("oldest_message_age_seconds", "40"),
        // Three rounds of 5 workers for 12 tasks of 90 s.
        ("drain_seconds", "270"),
        ("target_seconds", "600"),
        ("partitions_with_work", "5"),
        ("replicas_desired", "5"),
        ("replicas_ready", "2"),
        ("replicas_busy", "2"),
        ("replicas_idle", "1"),
        ("replicas_draining", "1"),
        ("replicas_not_members", "1"),
    ] {
        has(&metrics, &format!("separation_pool_{name}{VOCALS} {value}"));
    }
    // Labels are in alphabetical order.
    let decisions = r#"{namespace="media",pool="vocals",reason="LimitedByMaxReplicas",role="processor"} 1"#;
    has(&metrics, &format!("separation_pool_decisions_total{decisions}"));
    let writes = r#"{direction="up",namespace="media",pool="vocals",role="processor"} 1"#;
    has(&metrics, &format!("separation_pool_replica_writes_total{writes}"));
}

#[test]
fn the_times_that_a_decision_expected_become_series() {
    let metrics = Metrics::new();
    let role = metrics.role(&pool("vocals"), Role::Processor);
    assert!(!text(&metrics).contains("separation_pool_estimated"));
    role.estimated(Estimates {
        startup: Duration::from_secs(20),
        task: Duration::from_millis(22_500),
        task_tail: Duration::from_secs(70),
    });
    for (name, value) in [("startup", "20"), ("task", "22.5"), ("task_tail", "70")] {
        let series = format!("separation_pool_estimated_{name}_seconds{VOCALS} {value}");
        has(&metrics, &series);
    }
}

/// Families of values of readings.
const READ: [&str; 8] = [
    "lag_messages",
    "lag_age_seconds",
    "oldest_message_age_seconds",
    "drain_seconds",
    "partitions_with_work",
    "replicas_busy",
    "replicas_idle",
    "target_seconds",
];

/// Those of these families of the role that have a series.
fn with_series<'a>(metrics: &Metrics, families: &[&'a str]) -> Vec<&'a str> {
    let text = text(metrics);
    let has_series = |name: &&&str| text.contains(&format!("separation_pool_{name}{VOCALS}"));
    families.iter().filter(has_series).copied().collect()
}

#[test]
fn unknown_values_have_no_series_and_the_target_keeps_its_own() {
    let metrics = Metrics::new();
    let mut role = metrics.role(&pool("vocals"), Role::Processor);
    let known = known();
    let read = RoleSample {
        oldest_age: Some(Duration::from_secs(40)),
        non_members: 1,
        target: drain_deadline(),
        task: Some(Duration::from_secs(90)),
        ..sample(&known, Some(Duration::from_secs(9)))
    };
    let activity = Some(Activity::default());
    let decided = explanation(Reason::BacklogCovered, activity);
    role.decided(&decided, &read);
    assert_eq!(with_series(&metrics, &READ), READ);

    let unknown = Lag::Unknown {
        why: "unreachable".into(),
    };
    let held = Explanation {
        lag: None,
        ..explanation(Reason::HeldUnknownLag, None)
    };
    let unread = RoleSample {
        lag: &unknown,
        oldest_age: None,
        ..read
    };
    role.decided(&held, &unread);
    let left = ["lag_age_seconds", "target_seconds"];
    assert_eq!(with_series(&metrics, &READ), left);
    has(&metrics, &format!("separation_pool_lag_known{VOCALS} 0"));
    has(&metrics, &format!("separation_pool_lag_age_seconds{VOCALS} 9"));

    role.decided(&decided, &read);
    role.not_read();
    assert_eq!(with_series(&metrics, &READ), ["target_seconds"]);
    for (name, value) in [
        ("lag_known", 0),
        ("replicas_not_members", 0),
        ("replicas_desired", 5),
    ] {
        has(&metrics, &format!("separation_pool_{name}{VOCALS} {value}"));
    }
}

#[test]
fn the_target_has_a_series_if_it_is_a_time() {
    let deadline = Duration::from_secs(60);
    for (target, seconds) in [
        (Target::TasksPerReplica(NonZeroU32::MIN), None),
        (drain_deadline(), Some(600)),
        (Target::StartDeadline { deadline }, Some(60)),
    ] {
        let metrics = Metrics::new();
        let mut role = metrics.role(&pool("vocals"), Role::Processor);
        let lag = known();
        let sample = RoleSample {
            target,
            ..sample(&lag, None)
        };
        role.decided(&explanation(Reason::BacklogCovered, None), &sample);
        let series = format!("separation_pool_target_seconds{VOCALS}");
        match seconds {
            Some(seconds) => has(&metrics, &format!("{series} {seconds}")),
            None => assert!(!text(&metrics).contains(&series)),
        }
    }
}

#[test]
fn series_end_with_a_deleted_pool_and_a_recreated_pool_keeps_its_own() {
    let metrics = Metrics::new();
    let mut first = metrics.role(&pool("vocals"), Role::Processor);
    let lag = known();
    first.decided(&explanation(Reason::BacklogCovered, None), &sample(&lag, None));
    first.wrote_replicas(5, 2);
    let mut recreated = metrics.role(&pool("vocals"), Role::Processor);
    drop(first);
    recreated.decided(&explanation(Reason::HeldBusy, None), &sample(&lag, None));
    has(&metrics, &format!("separation_pool_replicas_desired{VOCALS} 5"));
    drop(recreated);
    let left = text(&metrics);
    assert!(!left.contains("vocals"), "{left}");
}

#[test]
fn clusters_are_labeled_by_their_first_server_and_the_number_of_labels_is_limited() {
    let metrics = Metrics::new();
    let one = metrics.cluster("kafka:9092,other:9092");
    let other_credentials = metrics.cluster("kafka:9092");
    has(
        &metrics,
        r#"separation_operator_kafka_errors_total{class="refused",cluster="kafka:9092"} 0"#,
    );
    one.read(Duration::from_millis(3));
    one.failed(KafkaFailure::Unreachable);
    one.connections(3);
    other_credentials.connections(2);
    one.connections(1);
    has(
        &metrics,
        r#"separation_operator_kafka_connections{cluster="kafka:9092"} 3"#,
    );
    drop(other_credentials);
    has(
        &metrics,
        r#"separation_operator_kafka_connections{cluster="kafka:9092"} 1"#,
    );
    has(
        &metrics,
        r#"separation_operator_kafka_errors_total{class="unreachable",cluster="kafka:9092"} 1"#,
    );
    has(
        &metrics,
        r#"separation_operator_kafka_read_seconds_bucket{cluster="kafka:9092",le="0.005"} 1"#,
    );
    let many: Vec<_> = (0..200)
        .map(|number| metrics.cluster(&format!("kafka-{number}:9092")))
        .collect();
    many.iter().for_each(|cluster| cluster.read(Duration::ZERO));
    let counts = text(&metrics)
        .lines()
        .filter(|line| line.starts_with("separation_operator_kafka_read_seconds_count"))
        .count();
    assert_eq!(counts, 101, "a hundred, and the others");
    has(
        &metrics,
        r#"separation_operator_kafka_read_seconds_count{cluster="others"} 101"#,
    );
    drop((one, many));
    assert!(!text(&metrics).contains("kafka:9092"));
    assert!(!text(&metrics).contains("others\""));
}

#[test]
fn leading_is_a_gauge() {
    let metrics = Metrics::new();
    metrics.leads(Leads::Yes);
    has(&metrics, "separation_operator_leader 1");
    metrics.leads(Leads::No);
    has(&metrics, "separation_operator_leader 0");
}

#[test]
fn recording_a_thousand_pools_is_fast() {
    let metrics = Metrics::new();
    let activity = Some(Activity::default());
    let mut roles: Vec<_> = (0..1_000)
        .flat_map(|number| Role::ALL.map(|role| metrics.role(&pool(&format!("pool-{number}")), role)))
        .collect();
    let (decided, lag) = (explanation(Reason::BacklogCovered, activity), known());
    let mut round = || {
        let start = std::time::Instant::now();
        for role in &mut roles {
            role.decided(&decided, &sample(&lag, Some(Duration::ZERO)));
        }
        start.elapsed()
    };
    round();
    let best = (0..5).map(|_| round()).min().expect("five");
    // Two thousand times sixteen plain stores: a few milliseconds, unoptimized and on a busy machine.
    assert!(best < Duration::from_millis(100), "{best:?}");
    assert_eq!(
        text(&metrics)
            .lines()
            .filter(|line| line.starts_with("separation_pool_lag_messages"))
            .count(),
        2_000
    );
}
