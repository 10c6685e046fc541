//! Validated roles.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use separation_contract::failure_policy::FailurePolicy;
use separation_contract::kafka::{Assignor, OffsetReset, Timings};
use separation_contract::names;

use super::checks::Checks;
use crate::crd::{
    AssignorSpec, OffsetResetSpec, PodOverrides, PolicySpec, RoleDefaults, RoleSpec, ScalingSpec, TargetSpec,
};
use crate::decide::{Mode, Policy, ReplicaLimits, Target};

/// Default of `maxRetries`.
const MAX_RETRIES: u32 = 3;

/// Delay of a reading beyond its interval: a deadline of five seconds, and one more attempt.
const READING_DELAY: Duration = Duration::from_secs(10);

/// Role of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Consumes tasks and produces stems.
    Processor,
    /// Consumes results, uploads stems and delivers webhooks.
    Uploader,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Processor, Self::Uploader];

    /// The property in the spec, the worker's subcommand, and the suffix of the Deployment's name.
    pub fn name(self) -> &'static str {
        self.defaults().property
    }

    fn defaults(self) -> &'static RoleDefaults {
        match self {
            Self::Processor => &RoleDefaults::PROCESSOR,
            Self::Uploader => &RoleDefaults::UPLOADER,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A validated role of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct RolePlan {
    /// Processor or uploader.
    pub role: Role,
    /// Whether the pool has workers of this role.
    pub enabled: bool,
    /// Topic that the workers consume.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// Dead-letter topic.
    pub dead_letter_topic: String,
    /// `max.poll.interval.ms`, `session.timeout.ms` and `heartbeat.interval.ms`.
    pub timings: Timings,
    /// Kafka `partition.assignment.strategy`.
    pub assignor: Assignor,
    /// Where a group without committed offsets starts.
    pub adoption: OffsetReset,
    /// Time limit of one task.
    pub task_timeout: Duration,
    /// Worker crashes on one task after which it becomes a dead letter.
    pub max_attempts: u32,
    /// Handling of tasks that fail with a transient error.
    pub on_failure: FailurePolicy,
    /// Time between two readings of lag.
    pub poll_interval: Duration,
    /// Scaling policy.
    pub policy: Policy,
    /// Merged over the pod template. Validated when it is merged.
    pub pod_overrides: PodOverrides,
}

impl RolePlan {
    pub(super) fn from_spec(role: Role, spec: &RoleSpec, checks: &mut Checks) -> Option<Self> {
        let defaults = role.defaults();
        let field = |name: &str| format!("{role}.{name}");
        let topic = spec.topic.clone().unwrap_or_else(|| defaults.topic.to_owned());
        let timings = timings(role, spec, checks);
        let task_timeout = match spec.task_timeout_seconds {
            None => timings.as_ref().map(Timings::default_task_timeout),
            Some(seconds) => checks
                .integer(&field("taskTimeoutSeconds"), seconds.into(), 1..=86_400)
                .map(Duration::from_secs),
        };
        if let (Some(timings), Some(task_timeout)) = (&timings, task_timeout)
            && let Err(error) = timings.check(task_timeout)
        {
            // The error includes its fix.
            let text = error.to_string();
            let (problem, fix) = text
                .split_once("; fix: ")
                .unwrap_or((&text, "change one of them"));
            let _: Option<()> = checks.refuse(&field("maxPollIntervalMs"), problem, fix);
        }
        let max_attempts = checks.integer(&field("maxAttempts"), spec.max_attempts.into(), 1..=100);
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

fn timings(role: Role, spec: &RoleSpec, checks: &mut Checks) -> Option<Timings> {
    let mut milliseconds = |name: &str, value: i32, range| {
        let checked = checks.integer(&format!("{role}.{name}"), value.into(), range);
        checked.map(Duration::from_millis)
    };
    let poll = match spec.max_poll_interval_ms {
        None => Some(role.defaults().timings.max_poll_interval),
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
        (PolicySpec::AlwaysCommit, Some(_)) => {
            let fix = "set policy to RetryOnFailure, or remove maxRetries";
            checks.refuse(&field, "AlwaysCommit never retries", fix)
        }
        (PolicySpec::RetryOnFailure, None) => Some(FailurePolicy::RetryOnFailure(MAX_RETRIES)),
        (PolicySpec::RetryOnFailure, Some(times)) => checks
            .integer(&field, times.into(), 1..=1_000)
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
    let min: Option<u32> = checks.integer(&field("minReplicas"), spec.min_replicas.into(), 0..=10_000);
    let max: Option<u32> = checks.integer(&field("maxReplicas"), spec.max_replicas.into(), 1..=10_000);
    let limits = min.zip(max).and_then(|(min, max)| {
        ReplicaLimits::new(min..=max).or_else(|| {
            let problem = format!("{min} is above maxReplicas, {max}");
            let fix = "lower minReplicas or raise maxReplicas";
            checks.refuse(&field("minReplicas"), problem, fix)
        })
    });
    let target = target(&field("target"), &spec.target, checks);
    let stabilization = checks.integer(
        &field("scaleDownStabilizationSeconds"),
        spec.scale_down_stabilization_seconds.into(),
        0..=86_400,
    );
    let (poll_interval, timings) = (poll_interval?, timings?);
    Some(Policy {
        limits: limits?,
        target: target?,
        mode: match (spec.paused, spec.recommend_only) {
            (true, _) => Mode::Paused,
            (false, true) => Mode::RecommendOnly,
            (false, false) => Mode::Active,
        },
        stabilization: Duration::from_secs(stabilization?),
        // At most one change per reading. Half the interval, because readings begin on time and end when brokers have
        // answered: the next one must not fall into the cooldown.
        cooldown: poll_interval / 2,
        // A cooperative rebalance has two rounds, and members learn of each with their next heartbeat; 5 s for joining.
        rebalance_hold: 2 * timings.heartbeat_interval + Duration::from_secs(5),
        // Three consecutive readings may fail or be late.
        stale_after: 3 * poll_interval + READING_DELAY,
    })
}

fn target(field: &str, spec: &TargetSpec, checks: &mut Checks) -> Option<Target> {
    let mut number = |name: &str, value: i32, max: i64| {
        let checked: Option<u32> = checks.integer(&format!("{field}.{name}"), value.into(), 1..=max);
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
        _ => {
            let problem = "has neither a number of tasks nor a time, or both";
            let fix = "set tasksPerReplica, or drainWithinSeconds together with expectedTaskSeconds";
            checks.refuse(field, problem, fix)
        }
    }
}
