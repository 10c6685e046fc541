//! The table of docs/operator.md: conditions of a pool in each situation, and the health that other tools compute from
//! them.

use super::*;
use crate::crd::ApiStatus;
use crate::names::TOPIC_MISSING;

const DOCUMENT: &str = include_str!("../../../../docs/operator.md");

/// The heading above the table.
const HEADING: &str = "\n## Health in Flux and Argo CD\n";

const HEADER: [&str; 2] = [
    "| situation | `Ready` | `Reconciling` | `Stalled` | other conditions | kstatus | Argo CD |",
    "|---|---|---|---|---|---|---|",
];

/// The conditions in the order of the status, with the status of a pool without problems.
const NORMAL: [(&str, &str); 8] = [
    ("Ready", "True"),
    ("Reconciling", "False"),
    ("Stalled", "False"),
    ("LagKnown", "True"),
    ("ScalingLimited", "False"),
    ("Degraded", "False"),
    ("DependenciesAvailable", "True"),
    ("GroupConflict", "False"),
];

/// Generation of the spec in the status.
const OBSERVED: i64 = 3;

/// The health that kstatus computes; the rules are those of sigs.k8s.io/cli-utils/pkg/kstatus.
fn kstatus(status: &SeparationPoolStatus, generation: i64) -> &'static str {
    let is = |type_: &str, expected: &str| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.type_ == type_ && condition.status == expected)
    };
    if status
        .observed_generation
        .is_some_and(|observed| observed != generation)
        || is("Reconciling", "True")
    {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Ready", "False") || is("Ready", "Unknown") {
        "InProgress"
    } else {
        "Current"
    }
}

/// The health that the documented script for Argo CD computes.
fn argo_health(status: &SeparationPoolStatus, generation: i64) -> &'static str {
    let is_true = |type_: &str| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    match () {
        () if status.observed_generation != Some(generation) => "Progressing",
        () if is_true("Stalled") => "Degraded",
        () if is_true("Reconciling") => "Progressing",
        () if is_true("Ready") => "Healthy",
        () => "Degraded",
    }
}

/// A pool with these processors and idle uploaders.
fn pool(processor: RoleReport) -> PoolReport {
    of_roles(vec![processor, report(Role::Uploader, known([0; 8]), 0)])
}

fn processors(lag: Lag, ready: u32) -> RoleReport {
    report(Role::Processor, lag, ready)
}

fn unknown_lag() -> RoleReport {
    let why = "no Kafka broker answers".into();
    processors(Lag::Unknown { why }, 3)
}

/// A dependency refuses the only worker, and more workers are needed.
fn refused(dependency: Dependency) -> RoleReport {
    let mut observation = observation(known([2; 8]), 1);
    observation.refusal = Some("a worker is refused".into());
    RoleReport {
        refusals: vec![Refusal {
            dependency,
            message: "a worker is refused".into(),
        }],
        ..decided(Role::Processor, policy(), observation)
    }
}

fn problem(reason: &str) -> Vec<WorkloadProblem> {
    vec![WorkloadProblem::new(reason, Some("the details"))]
}

/// Pools that scale.
fn scaling() -> Vec<(&'static str, PoolReport)> {
    let paused = Policy {
        mode: Mode::Paused,
        ..policy()
    };
    let waiting = observation(known([1; 8]), 3);
    vec![
        (
            "the lag is 0, and no worker runs",
            pool(processors(known([0; 8]), 0)),
        ),
        ("a scale-up is in progress", pool(processors(known([1; 8]), 3))),
        (
            "all desired workers are ready",
            pool(processors(known([1; 8]), 8)),
        ),
        (
            "the backlog needs more than `maxReplicas`",
            pool(processors(known([1; 16]), 8)),
        ),
        (
            "the backlog needs more workers than partitions have tasks",
            pool(processors(known([4, 4, 0, 0, 0, 0, 0, 0]), 2)),
        ),
        (
            "the topic has fewer partitions than `maxReplicas`",
            pool(processors(known([1; 4]), 4)),
        ),
        (
            "`scaling.mode` is `Paused`",
            pool(decided(Role::Processor, paused, waiting)),
        ),
    ]
}

/// Pools whose pods change or cannot start.
fn changing() -> Vec<(&'static str, PoolReport)> {
    let pending = |change| RoleReport {
        pending: Some(change),
        ..processors(known([1; 8]), 8)
    };
    let stuck = RoleReport {
        problems: problem("RolloutStalled"),
        ..pending(PendingChange::RollingOut)
    };
    let mut without_room = observation(known([1; 8]), 5);
    for pod in without_room.workload.pods.iter_mut().take(2) {
        pod.state = PodState::Unschedulable;
    }
    let unpullable = RoleReport {
        problems: problem("ImagePullBackOff"),
        ..processors(known([1; 8]), 0)
    };
    vec![
        (
            "pods are replaced after a change",
            pool(pending(PendingChange::RollingOut)),
        ),
        ("the same without progress for 15 minutes", pool(stuck)),
        (
            "a change of `storage.staging` while tasks are queued",
            pool(pending(PendingChange::Staging)),
        ),
        (
            "no node has room for some of the pods",
            pool(decided(Role::Processor, policy(), without_room)),
        ),
        (
            "the image of the first workers cannot be pulled",
            pool(unpullable),
        ),
    ]
}

/// Pools with an HTTP API of two pods.
fn with_api() -> Vec<(&'static str, PoolReport)> {
    let of_api = |api: ApiReport| PoolReport::Running {
        roles: vec![
            processors(known([1; 8]), 8),
            report(Role::Uploader, known([0; 8]), 0),
        ],
        stuck: Vec::new(),
        api,
    };
    let api = |ready, is_rolling_out, problems| ApiReport {
        status: Some(ApiStatus {
            desired: 2,
            ready,
            ..ApiStatus::default()
        }),
        is_rolling_out,
        problems,
        ..ApiReport::default()
    };
    let pool = |ready, is_rolling_out, problems| of_api(api(ready, is_rolling_out, problems));
    let stopped = ApiReport {
        is_stopped: true,
        ..api(0, true, Vec::new())
    };
    vec![
        (
            "the HTTP API is stopped until the last worker with the previous `storage.staging` has ended",
            of_api(stopped),
        ),
        ("a pod of the HTTP API restarts", pool(1, false, Vec::new())),
        (
            "the pods of the HTTP API are started or replaced",
            pool(1, true, Vec::new()),
        ),
        (
            "the Secret of a new HTTP API is missing",
            pool(0, true, problem("SecretMissing")),
        ),
        (
            "the image of a new HTTP API cannot be pulled",
            pool(0, true, problem("ImagePullBackOff")),
        ),
        (
            "new pods of the HTTP API have not been ready for 10 minutes",
            pool(2, true, problem("ProgressDeadlineExceeded")),
        ),
        (
            "the Service of the HTTP API cannot be created, because its name is taken",
            pool(0, true, problem("NameTaken")),
        ),
        (
            "another field manager keeps changing the HTTP API",
            pool(2, false, problem("FieldManagerConflict")),
        ),
    ]
}

/// Pools that cannot process tasks, or whose state is unknown.
fn unavailable() -> Vec<(&'static str, PoolReport)> {
    let uninitialized = |report| RoleReport {
        offsets: None,
        ..report
    };
    let without_topic = RoleReport {
        problems: problem(TOPIC_MISSING),
        ..uninitialized(unknown_lag())
    };
    let mut shared = observation(known([1; 8]), 0);
    shared.conflict = Some("another pool uses the group".into());
    let for_long = RoleReport {
        last_known_time: Some(time("2025-12-31T23:55:00Z")),
        ..unknown_lag()
    };
    let rejected = RoleReport {
        refusals: refused(Dependency::Kafka).refusals,
        ..unknown_lag()
    };
    let invalid = Problem {
        field: "spec.processor.model".into(),
        problem: "a worker runs one model".into(),
        fix: "set exactly one of name and path".into(),
    };
    vec![
        (
            "a new pool: its offsets are not initialized yet",
            pool(uninitialized(processors(known([1; 8]), 0))),
        ),
        (
            "a new pool whose topic does not exist and cannot be created",
            pool(without_topic),
        ),
        (
            "another pool uses the consumer group of a new pool",
            pool(uninitialized(decided(Role::Processor, policy(), shared))),
        ),
        (
            "the spec is invalid",
            PoolReport::Refused(Problems(vec![invalid])),
        ),
        (
            "lag has been unknown for less than 5 minutes",
            pool(unknown_lag()),
        ),
        ("lag has been unknown for 5 minutes or more", pool(for_long)),
        ("Kafka refuses the user, for less than 5 minutes", pool(rejected)),
        (
            "the object store refuses the workers",
            pool(refused(Dependency::Store)),
        ),
        (
            "the workers cannot load the model",
            pool(refused(Dependency::Model)),
        ),
        (
            "ready pods are not members of the consumer group",
            pool(refused(Dependency::Membership)),
        ),
    ]
}

/// A row of the table. Of the conditions after `Stalled`, those are listed that differ from a pool without problems.
fn row(situation: &str, report: &PoolReport, generation: i64) -> String {
    let status = status_of(report, None);
    assert_eq!(status.observed_generation, Some(OBSERVED));
    let mut cells = vec![situation.to_owned()];
    let mut others = Vec::new();
    assert_eq!(status.conditions.len(), NORMAL.len());
    for (index, (condition, (type_, normal))) in status.conditions.iter().zip(NORMAL).enumerate() {
        assert_eq!(condition.type_, type_);
        let cell = match &*condition.status {
            "Unknown" => "Unknown".to_owned(),
            found if found == normal => found.to_owned(),
            found => format!("{found} `{}`", condition.reason),
        };
        if index < 3 {
            cells.push(cell);
        } else if condition.status != normal {
            others.push(format!("`{type_}` {cell}"));
        }
    }
    let others = if others.is_empty() {
        "normal".to_owned()
    } else {
        others.join(", ")
    };
    let health = [kstatus(&status, generation), argo_health(&status, generation)];
    cells.push(others);
    cells.extend(health.map(str::to_owned));
    format!("| {} |", cells.join(" | "))
}

#[test]
fn tools_read_the_situations_of_the_documentation() {
    let (_, section) = DOCUMENT.split_once(HEADING).expect("the section");
    let documented: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .collect();
    let mut table = HEADER.map(str::to_owned).to_vec();
    for (situation, report) in [scaling(), changing(), with_api(), unavailable()].concat() {
        table.push(row(situation, &report, OBSERVED));
    }
    let running = pool(processors(known([1; 8]), 8));
    table.push(row(
        "the operator has not read the last change of the spec",
        &running,
        OBSERVED + 1,
    ));
    assert_eq!(documented.join("\n"), table.join("\n"), "docs/operator.md");
}
