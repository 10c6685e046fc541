//! Scaling policy of a role: limits, target and times.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// Validated scaling policy of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `minReplicas` and `maxReplicas`.
    pub limits: ReplicaLimits,
    /// Tasks or time per replica.
    pub target: Target,
    /// Whether decisions are executed.
    pub mode: Mode,
    /// How long fewer replicas must have been enough before a scale-down.
    pub stabilization: Duration,
    /// The same for the last replica.
    pub last_replica_stabilization: Duration,
    /// Cooldown: minimum time between two changes of replicas.
    pub cooldown: Duration,
    /// How long a rebalance may delay a scale-up.
    pub rebalance_hold: Duration,
    /// A reading older than this counts as unknown.
    pub stale_after: Duration,
}

impl Policy {
    /// How long fewer replicas than `current` must have been enough.
    pub(super) fn stabilization_of(&self, current: u32) -> Duration {
        if current == 1 {
            self.last_replica_stabilization
        } else {
            self.stabilization
        }
    }
}

/// `minReplicas` and `maxReplicas`: min is at most max, and max is at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaLimits {
    min: u32,
    max: u32,
}

impl ReplicaLimits {
    /// None if min is above max, or max is 0.
    pub fn new(min_and_max: std::ops::RangeInclusive<u32>) -> Option<Self> {
        let (min, max) = min_and_max.into_inner();
        (min <= max && max > 0).then_some(Self { min, max })
    }

    /// `minReplicas`.
    pub fn min(self) -> u32 {
        self.min
    }

    /// `maxReplicas`.
    pub fn max(self) -> u32 {
        self.max
    }
}

/// How many workers an amount of lag needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One worker for this many tasks.
    TasksPerReplica(NonZeroU32),
    /// As many workers as complete all tasks in time.
    DrainDeadline {
        /// Time for all tasks, in seconds.
        within_seconds: NonZeroU32,
        /// Expected time for one task, in seconds.
        task_seconds: NonZeroU32,
    },
    /// As many workers as begin each task in time.
    StartDeadline {
        /// Time from a message's arrival until its task begins.
        deadline: Duration,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TasksPerReplica(tasks) => write!(f, "TasksPerReplica {tasks}"),
            Self::DrainDeadline { within_seconds, .. } => write!(f, "DrainDeadline {within_seconds} s"),
            Self::StartDeadline { deadline } => write!(f, "StartDeadline {} s", deadline.as_secs()),
        }
    }
}

impl Target {
    /// Workers that a lag of `lag` tasks needs, without limits: `ceil(lag / per replica)` or
    /// `ceil(lag * task / within)`. Does not depend on measured task times. None if it depends on more than the lag.
    pub fn need(self, lag: u128) -> Option<u32> {
        let replicas = match self {
            Self::TasksPerReplica(tasks) => lag.div_ceil(u128::from(tasks.get())),
            Self::DrainDeadline {
                within_seconds,
                task_seconds,
            } => lag
                .saturating_mul(u128::from(task_seconds.get()))
                .div_ceil(u128::from(within_seconds.get())),
            Self::StartDeadline { .. } => return None,
        };
        Some(u32::try_from(replicas).unwrap_or(u32::MAX))
    }

    /// The time within which each task should begin, if that is the target.
    pub fn start_deadline(self) -> Option<Duration> {
        match self {
            Self::StartDeadline { deadline } => Some(deadline),
            Self::TasksPerReplica(_) | Self::DrainDeadline { .. } => None,
        }
    }
}

/// Time that `replicas` workers take for a lag of `lag` tasks of this time.
pub fn completion_time(task: Duration, lag: u128, replicas: u32) -> Duration {
    let rounds = lag.div_ceil(u128::from(replicas.max(1)));
    task.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
}

/// Times that a pool declares; they replace learned ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeclaredEstimates {
    /// The time of a task.
    pub task: Option<Duration>,
    /// From a scale-up to the first task that the new worker begins.
    pub startup: Option<Duration>,
}

/// Whether decisions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Decisions are executed.
    #[default]
    Auto,
    /// Replicas stay unchanged.
    Paused,
    /// Decisions are reported, not executed.
    DryRun,
}
