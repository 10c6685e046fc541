//! Processors and uploaders, checked.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use separation_contract::kafka::{Assignor, OffsetReset, Timings};
use separation_contract::names;

use super::Checks;
use crate::crd::{
    AssignorSpec, OffsetResetSpec, PodOverrides, PolicySpec, RoleDefaults, RoleSpec, ScalingSpec, TargetSpec,
};
use crate::decide::{Bounds, Mode, Policy, Target};

/// How often `RetryOnFailure` puts a task back where nothing else is said.
const MAX_RETRIES: u32 = 3;

/// What a reading may be late beyond its interval: a deadline of five seconds, and one try more.
const LATE: Duration = Duration::from_secs(10);

/// What workers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// They take tasks and make stems.
    Processor,
    /// They take results and call webhooks.
    Uploader,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Processor, Self::Uploader];

    /// The property in the spec, the worker's subcommand, and the end of the Deployment's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processor => RoleDefaults::PROCESSOR.property,
            Self::Uploader => RoleDefaults::UPLOADER.property,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Workers of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct RolePlan {
    /// Which kind.
    pub role: Role,
    /// Whether the pool has them.
    pub enabled: bool,
    /// Topic that they read.
    pub topic: String,
    /// Their consumer group.
    pub group: String,
    /// Topic for messages that nobody can work on.
    pub dead_letter_topic: String,
    /// How they prove that they live.
    pub timings: Timings,
    /// How they share partitions.
    pub assignor: Assignor,
    /// Where an adopted group without offsets starts.
    pub adoption: OffsetReset,
    /// How long one task may take.
    pub task_timeout: Duration,
    /// How often a task may kill its worker.
    pub max_attempts: u32,
    /// What becomes of a task that fails.
    pub on_failure: FailurePolicy,
    /// How often lag is read.
    pub poll_interval: Duration,
    /// How many there are.
    pub policy: Policy,
    /// What is merged over the pods, last. Checked when it is merged.
    pub pod_overrides: PodOverrides,
}

/// What becomes of a task that failed for a reason that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The failure is published and the task committed.
    AlwaysCommit,
    /// The task goes to the end of its topic, this often.
    RetryOnFailure(u32),
}

impl RolePlan {
    pub(super) fn of(
        role: Role,
        spec: &RoleSpec,
        defaults: &RoleDefaults,
        checks: &mut Checks,
    ) -> Option<Self> {
        let field = |name: &str| format!("{role}.{name}");
        let topic = spec.topic.clone().unwrap_or_else(|| defaults.topic.to_owned());
        let timings = timings(role, spec, defaults, checks);
        let task_timeout = match spec.task_timeout_seconds {
            None => timings.as_ref().map(Timings::default_task_timeout),
            Some(seconds) => checks
                .whole(&field("taskTimeoutSeconds"), seconds.into(), 1..=86_400)
                .map(Duration::from_secs),
        };
        if let (Some(timings), Some(task_timeout)) = (&timings, task_timeout)
            && let Err(error) = timings.check(task_timeout)
        {
            // The error names its own fix.
            let text = error.to_string();
            let (problem, fix) = text
                .split_once("; fix: ")
                .unwrap_or((&text, "change one of them"));
            let _: Option<()> = checks.refuse(&field("maxPollIntervalMs"), problem, fix);
        }
        let max_attempts = checks.whole(&field("maxAttempts"), spec.max_attempts.into(), 1..=100);
        let on_failure = on_failure(role, spec, checks);
        let poll_interval = poll_interval(role, &spec.scaling, checks);
        let policy = policy(role, &spec.scaling, poll_interval, timings, checks);
        Some(Self {
            role,
            enabled: spec.enabled,
            group: spec.group.clone().unwrap_or_else(|| defaults.group.to_owned()),
            dead_letter_topic: spec
                .dead_letter_topic
                .clone()
                .unwrap_or_else(|| names::dead_letter_topic(&topic)),
            topic,
            timings: timings?,
            assignor: match spec.assignor {
                AssignorSpec::CooperativeSticky => Assignor::CooperativeSticky,
                AssignorSpec::Range => Assignor::Range,
            },
            adoption: match spec.auto_offset_reset {
                OffsetResetSpec::Latest => OffsetReset::Latest,
                OffsetResetSpec::Earliest => OffsetReset::Earliest,
            },
            task_timeout: task_timeout?,
            max_attempts: max_attempts?,
            on_failure: on_failure?,
            poll_interval: poll_interval?,
            policy: policy?,
            pod_overrides: spec.pod_overrides.clone(),
        })
    }
}

fn timings(role: Role, spec: &RoleSpec, defaults: &RoleDefaults, checks: &mut Checks) -> Option<Timings> {
    let mut milliseconds = |name: &str, value: i32, range| {
        let checked = checks.whole(&format!("{role}.{name}"), value.into(), range);
        checked.map(Duration::from_millis)
    };
    let poll = match spec.max_poll_interval_ms {
        None => Some(defaults.timings.max_poll_interval),
        Some(value) => milliseconds("maxPollIntervalMs", value, 10_000..=86_400_000),
    };
    let session = milliseconds("sessionTimeoutMs", spec.session_timeout_ms, 6_000..=1_800_000);
    let heartbeat = milliseconds("heartbeatIntervalMs", spec.heartbeat_interval_ms, 100..=600_000);
    Some(Timings {
        max_poll_interval: poll?,
        session_timeout: session?,
        heartbeat_interval: heartbeat?,
    })
}

fn on_failure(role: Role, spec: &RoleSpec, checks: &mut Checks) -> Option<FailurePolicy> {
    let field = format!("{role}.onFailure.maxRetries");
    match (spec.on_failure.policy, spec.on_failure.max_retries) {
        (PolicySpec::AlwaysCommit, None) => Some(FailurePolicy::AlwaysCommit),
        (PolicySpec::AlwaysCommit, Some(_)) => checks.refuse(
            &field,
            "AlwaysCommit never retries",
            "set policy to RetryOnFailure, or remove maxRetries",
        ),
        (PolicySpec::RetryOnFailure, None) => Some(FailurePolicy::RetryOnFailure(MAX_RETRIES)),
        (PolicySpec::RetryOnFailure, Some(times)) => checks
            .whole(&field, times.into(), 1..=1_000)
            .map(FailurePolicy::RetryOnFailure),
    }
}

fn poll_interval(role: Role, spec: &ScalingSpec, checks: &mut Checks) -> Option<Duration> {
    let seconds = spec.poll_interval_seconds;
    if (0.1..=300.0).contains(&seconds) {
        Some(Duration::from_secs_f64(seconds))
    } else {
        let field = format!("{role}.scaling.pollIntervalSeconds");
        checks.refuse(&field, format!("{seconds} is out of range"), "choose 0.1 to 300")
    }
}

fn policy(
    role: Role,
    spec: &ScalingSpec,
    poll_interval: Option<Duration>,
    timings: Option<Timings>,
    checks: &mut Checks,
) -> Option<Policy> {
    let field = |name: &str| format!("{role}.scaling.{name}");
    let min: Option<u32> = checks.whole(&field("minReplicas"), spec.min_replicas.into(), 0..=10_000);
    let max: Option<u32> = checks.whole(&field("maxReplicas"), spec.max_replicas.into(), 1..=10_000);
    let bounds = min.zip(max).and_then(|(min, max)| {
        Bounds::new(min..=max).or_else(|| {
            checks.refuse(
                &field("minReplicas"),
                format!("{min} is above maxReplicas, {max}"),
                "lower minReplicas or raise maxReplicas",
            )
        })
    });
    let target = target(&field("target"), &spec.target, checks);
    let stabilisation = checks.whole(
        &field("scaleDownStabilizationSeconds"),
        spec.scale_down_stabilization_seconds.into(),
        0..=86_400,
    );
    let (poll_interval, timings) = (poll_interval?, timings?);
    Some(Policy {
        bounds: bounds?,
        target: target?,
        mode: match (spec.paused, spec.recommend_only) {
            (true, _) => Mode::Paused,
            (false, true) => Mode::RecommendOnly,
            (false, false) => Mode::Active,
        },
        stabilisation: Duration::from_secs(stabilisation?),
        // One change per reading: what is decided twice on one reading is decided once. Half, because readings begin on
        // time and end when brokers have answered: the next one must not come a moment too early.
        settle: poll_interval / 2,
        // A cooperative rebalance has two rounds, and members hear of each with their next heartbeat; 5 s for joining.
        rebalance_hold: 2 * timings.heartbeat_interval + Duration::from_secs(5),
        // Three readings may fail or be late in a row.
        stale_after: 3 * poll_interval + LATE,
    })
}

fn target(field: &str, spec: &TargetSpec, checks: &mut Checks) -> Option<Target> {
    let mut number = |name: &str, value: i32, most: i64| {
        let checked: Option<u32> = checks.whole(&format!("{field}.{name}"), value.into(), 1..=most);
        checked.and_then(NonZeroU32::new)
    };
    match (
        spec.tasks_per_replica,
        spec.drain_within_seconds,
        spec.expected_task_seconds,
    ) {
        (Some(tasks), None, None) => number("tasksPerReplica", tasks, 1_000_000).map(Target::TasksPerReplica),
        (None, Some(within), Some(task)) => {
            let within_seconds = number("drainWithinSeconds", within, 604_800);
            let task_seconds = number("expectedTaskSeconds", task, 86_400);
            Some(Target::DrainWithin {
                within_seconds: within_seconds?,
                task_seconds: task_seconds?,
            })
        }
        _ => checks.refuse(
            field,
            "is neither a number of tasks nor a time",
            "set tasksPerReplica, or drainWithinSeconds together with expectedTaskSeconds",
        ),
    }
}
