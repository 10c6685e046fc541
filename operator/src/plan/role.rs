//! Validated roles.

use std::fmt;
use std::time::Duration;

use separation_contract::kafka::{Assignor, OffsetReset, Timings};
use separation_contract::names;

use super::checks::Checks;
use super::scaling::{ScaleDownWindows, Scaling};
use crate::crd::{AssignorSpec, InitialOffset, PodFields, RoleDefaults, RoleSpec};
use crate::decide::{DeclaredEstimates, Estimates, Policy};

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
    /// Estimated times of the spec, which replace learned ones.
    pub declared: DeclaredEstimates,
    /// Stabilization windows of the spec.
    pub windows: ScaleDownWindows,
    /// Scaling policy, before start-up times are learned: decisions use [`RolePlan::policy_with`].
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
        let scaling = Scaling::from_spec(&field("scaling"), &spec.scaling, timings.as_ref(), checks)?;
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
            declared: scaling.declared,
            windows: scaling.windows,
            policy: scaling.policy,
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

    /// The policy with the stabilization windows that these times result in.
    pub fn policy_with(&self, estimates: Estimates) -> Policy {
        let [stabilization, last_replica_stabilization] =
            self.windows.complete(self.policy.target, estimates.startup);
        Policy {
            stabilization,
            last_replica_stabilization,
            ..self.policy
        }
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
