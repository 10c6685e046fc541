//! Validated roles.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use separation_contract::kafka::{Assignor, OffsetReset, Timings};
use separation_contract::names;

use super::checks::Checks;
use crate::crd::{
    AssignorSpec, InitialOffset, PodFields, RoleDefaults, RoleSpec, ScalingMode, ScalingSpec, TargetKind,
    TargetSpec,
};
use crate::decide::{Mode, Policy, ReplicaLimits, Target};

/// Default of `stabilizationWindowSeconds`.
const STABILIZATION: i32 = 120;

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
    pub initial_offset: OffsetReset,
    /// Time limit of one task.
    pub task_timeout: Duration,
    /// Longest time that a running task may take after a shutdown request; none means the poll interval.
    pub drain: Option<Duration>,
    /// Worker crashes on one task after which it becomes a dead letter.
    pub max_crashes: u32,
    /// How often a task that fails with a transient error is published again.
    pub max_retries: u32,
    /// Time between two readings of lag.
    pub lag_check_period: Duration,
    /// Estimated duration of a task, in seconds.
    pub task_seconds: Option<NonZeroU32>,
    /// Scaling policy.
    pub policy: Policy,
    /// Settings of the pods. Validated when they are merged with the pod template.
    pub pod: PodFields,
}

impl RolePlan {
    /// `drain_seconds` is of processors only.
    pub(super) fn from_spec(
        role: Role,
        spec: &RoleSpec,
        drain_seconds: Option<i32>,
        checks: &mut Checks,
    ) -> Option<Self> {
        let defaults = role.defaults();
        let field = |name: &str| format!("{role}.{name}");
        let topic = spec.topic.clone().unwrap_or_else(|| defaults.topic.to_owned());
        let timings = timings(role, spec, checks);
        let task_timeout = match spec.task_deadline_seconds {
            None => timings.as_ref().map(Timings::default_task_timeout),
            Some(seconds) => checks
                .integer(&field("taskDeadlineSeconds"), seconds.into(), 1..=86_400)
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
            let _: Option<()> = checks.refuse(&field("consumer.maxPollIntervalMs"), problem, fix);
        }
        let drain = drain(&field("drainSeconds"), drain_seconds, timings.as_ref(), checks);
        let max_crashes = checks.integer(&field("maxCrashes"), spec.max_crashes.into(), 1..=100);
        let max_retries = checks.integer(&field("maxRetries"), spec.max_retries.into(), 0..=1_000);
        let period = spec.scaling.lag_check_period_seconds.into();
        let lag_check_period = checks
            .integer(&field("scaling.lagCheckPeriodSeconds"), period, 1..=300)
            .map(Duration::from_secs);
        let task_seconds = task_seconds(role, &spec.scaling, checks);
        let policy = policy(role, &spec.scaling, task_seconds.flatten(), timings, checks);
        let mut plan = Self {
            role,
            enabled: spec.enabled,
            group: spec
                .consumer_group
                .clone()
                .unwrap_or_else(|| defaults.group.to_owned()),
            dead_letter_topic: spec
                .dead_letter_topic
                .clone()
                .unwrap_or_else(|| names::dead_letter_topic(&topic)),
            topic,
            timings: timings?,
            assignor: match spec.consumer.assignor {
                AssignorSpec::CooperativeSticky => Assignor::CooperativeSticky,
                AssignorSpec::Range => Assignor::Range,
            },
            initial_offset: match spec.initial_offset {
                InitialOffset::Earliest => OffsetReset::Earliest,
                InitialOffset::Latest => OffsetReset::Latest,
            },
            task_timeout: task_timeout?,
            drain: drain?,
            max_crashes: max_crashes?,
            max_retries: max_retries?,
            lag_check_period: lag_check_period?,
            task_seconds: task_seconds?,
            policy: policy?,
            pod: spec.pod.clone(),
        };
        plan.set_lag_check_period(plan.lag_check_period);
        Some(plan)
    }

    /// Sets the lag check period, and the times of the policy that depend on it.
    pub fn set_lag_check_period(&mut self, period: Duration) {
        self.lag_check_period = period;
        // At most one change per reading. Half the period, because readings begin on time and end when brokers have
        // answered: the next one must not fall into the cooldown.
        self.policy.cooldown = period / 2;
        // Three consecutive readings may fail or be late.
        self.policy.stale_after = 3 * period + READING_DELAY;
    }
}

/// The longest time of a drain; the outer `None` after a problem.
fn drain(
    field: &str,
    seconds: Option<i32>,
    timings: Option<&Timings>,
    checks: &mut Checks,
) -> Option<Option<Duration>> {
    let drain = checks.optional_integer(field, seconds, 1..=86_400)?;
    let drain = drain.map(Duration::from_secs);
    let limit = timings.map(|timings| timings.max_poll_interval);
    if let (Some(drain), Some(limit)) = (drain, limit)
        && drain > limit
    {
        let (drain, limit) = (drain.as_secs(), limit.as_secs());
        let problem = format!(
            "{drain} is longer than the poll interval, {limit} s, after which another worker starts the task"
        );
        return checks.refuse(field, problem, "lower it or raise consumer.maxPollIntervalMs");
    }
    Some(drain)
}

fn timings(role: Role, spec: &RoleSpec, checks: &mut Checks) -> Option<Timings> {
    let mut milliseconds = |name: &str, value: i32, range| {
        let checked = checks.integer(&format!("{role}.consumer.{name}"), value.into(), range);
        checked.map(Duration::from_millis)
    };
    let poll = match spec.consumer.max_poll_interval_ms {
        None => Some(role.defaults().timings.max_poll_interval),
        Some(value) => milliseconds("maxPollIntervalMs", value, 10_000..=86_400_000),
    };
    let session = milliseconds(
        "sessionTimeoutMs",
        spec.consumer.session_timeout_ms,
        6_000..=1_800_000,
    );
    let heartbeat = milliseconds(
        "heartbeatIntervalMs",
        spec.consumer.heartbeat_interval_ms,
        100..=600_000,
    );
    Some(Timings {
        max_poll_interval: poll?,
        session_timeout: session?,
        heartbeat_interval: heartbeat?,
    })
}

fn policy(
    role: Role,
    spec: &ScalingSpec,
    task_seconds: Option<NonZeroU32>,
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
    let target = target(&field("target"), spec, task_seconds, checks);
    let windows = spec.scale_down.as_ref();
    let mut window = |name: &str, seconds: Option<i32>, default: i32| {
        let field = field(&format!("scaleDown.{name}"));
        let checked = checks.integer(&field, seconds.unwrap_or(default).into(), 0..=86_400);
        checked.map(Duration::from_secs)
    };
    let others = windows.and_then(|windows| windows.stabilization_window_seconds);
    let last = windows.and_then(|windows| windows.last_replica_stabilization_window_seconds);
    let stabilization = window("stabilizationWindowSeconds", others, STABILIZATION);
    let last_replica_stabilization = window(
        "lastReplicaStabilizationWindowSeconds",
        last,
        others.unwrap_or(STABILIZATION),
    );
    let timings = timings?;
    Some(Policy {
        limits: limits?,
        target: target?,
        mode: match spec.mode {
            ScalingMode::Auto => Mode::Auto,
            ScalingMode::DryRun => Mode::DryRun,
            ScalingMode::Paused => Mode::Paused,
        },
        stabilization: stabilization?,
        last_replica_stabilization: last_replica_stabilization?,
        // Set with the lag check period.
        cooldown: Duration::ZERO,
        stale_after: Duration::ZERO,
        // A cooperative rebalance has two rounds, and members learn of each with their next heartbeat; 5 s for joining.
        rebalance_hold: 2 * timings.heartbeat_interval + Duration::from_secs(5),
    })
}

/// The estimated duration of a task; the outer `None` after a problem.
fn task_seconds(role: Role, spec: &ScalingSpec, checks: &mut Checks) -> Option<Option<NonZeroU32>> {
    let Some(seconds) = spec
        .estimates
        .as_ref()
        .and_then(|estimates| estimates.task_seconds)
    else {
        return Some(None);
    };
    let field = format!("{role}.scaling.estimates.taskSeconds");
    positive(checks, &field, seconds, 86_400).map(Some)
}

fn positive(checks: &mut Checks, field: &str, value: i32, max: i64) -> Option<NonZeroU32> {
    let checked: Option<u32> = checks.integer(field, value.into(), 1..=max);
    checked.and_then(NonZeroU32::new)
}

fn target(
    field: &str,
    spec: &ScalingSpec,
    task_seconds: Option<NonZeroU32>,
    checks: &mut Checks,
) -> Option<Target> {
    let Some(target) = &spec.target else {
        return Some(Target::TasksPerReplica(NonZeroU32::MIN));
    };
    let TargetSpec {
        kind,
        tasks_per_replica,
        drain_deadline_seconds,
    } = target;
    match (kind, drain_deadline_seconds, task_seconds) {
        (TargetKind::TasksPerReplica, None, _) => {
            let tasks = tasks_per_replica.unwrap_or(1);
            let field = format!("{field}.tasksPerReplica");
            positive(checks, &field, tasks, 1_000_000).map(Target::TasksPerReplica)
        }
        (TargetKind::DrainDeadline, Some(within), Some(task)) if tasks_per_replica.is_none() => {
            let field = format!("{field}.drainDeadlineSeconds");
            Some(Target::DrainDeadline {
                within_seconds: positive(checks, &field, *within, 604_800)?,
                task_seconds: task,
            })
        }
        (TargetKind::TasksPerReplica, Some(_), _) => {
            let fix = "set type to DrainDeadline, or remove drainDeadlineSeconds";
            checks.refuse(field, "has a field of another type", fix)
        }
        (TargetKind::DrainDeadline, ..) => {
            let problem = "a drain deadline needs a time and the duration of a task, and no number of tasks";
            let fix =
                "set drainDeadlineSeconds and scaling.estimates.taskSeconds, and remove tasksPerReplica";
            checks.refuse(field, problem, fix)
        }
    }
}
