//! What a pool asks of its operator: bounds, target, and how long things must hold.

use std::num::NonZeroU32;
use std::time::Duration;

/// What a pool asks for, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The fewest and the most workers.
    pub bounds: Bounds,
    /// How many workers an amount of work deserves.
    pub target: Target,
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// How long fewer workers must have been enough before there are fewer.
    pub stabilisation: Duration,
    /// The shortest time between two changes.
    pub settle: Duration,
    /// How long a rebalance may hold up a scale-out.
    pub rebalance_hold: Duration,
    /// A reading older than this counts as none.
    pub stale_after: Duration,
}

/// The fewest and the most workers; the fewest are not more than the most, and the most are at least one: a pool that
/// must not work is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    min: u32,
    max: u32,
}

impl Bounds {
    /// Bounds, unless they contradict each other.
    pub fn new(fewest_and_most: std::ops::RangeInclusive<u32>) -> Option<Self> {
        let (min, max) = fewest_and_most.into_inner();
        (min <= max && max > 0).then_some(Self { min, max })
    }

    /// The fewest workers.
    pub fn min(self) -> u32 {
        self.min
    }

    /// The most workers.
    pub fn max(self) -> u32 {
        self.max
    }
}

/// How many workers an amount of work deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One worker for this many tasks.
    TasksPerReplica(NonZeroU32),
    /// As many workers as finish everything in time.
    DrainWithin {
        /// The time for everything, in seconds.
        within_seconds: NonZeroU32,
        /// The time for one task, in seconds.
        task_seconds: NonZeroU32,
    },
}

impl Target {
    /// Workers that `work` tasks deserve, bounds aside: `ceil(work / per replica)` or `ceil(work * task / within)`. No
    /// completion needs to have been seen.
    pub fn need(self, work: u128) -> u32 {
        let replicas = match self {
            Self::TasksPerReplica(tasks) => work.div_ceil(u128::from(tasks.get())),
            Self::DrainWithin {
                within_seconds,
                task_seconds,
            } => work
                .saturating_mul(u128::from(task_seconds.get()))
                .div_ceil(u128::from(within_seconds.get())),
        };
        u32::try_from(replicas).unwrap_or(u32::MAX)
    }

    /// How long so many workers take for so many tasks; only where the time of one is declared.
    pub fn waiting_time(self, work: u128, replicas: u32) -> Option<Duration> {
        let Self::DrainWithin { task_seconds, .. } = self else {
            return None;
        };
        let rounds = work.div_ceil(u128::from(replicas.max(1)));
        let seconds = rounds.saturating_mul(u128::from(task_seconds.get()));
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }
}

/// Whether decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// They are.
    #[default]
    Active,
    /// The number of workers stays as it is.
    Paused,
    /// They are reported only.
    RecommendOnly,
}
