//! The inputs of a simulation.

use std::time::Duration;

use clap::ValueEnum;
use separation_operator::decide::{Estimates, Moment};
use separation_operator::plan::RolePlan;

use super::trace::Trace;

/// The most readings in one simulation: 30 days at the default period of 2 s are 1.3 million.
pub(super) const MAX_READINGS: u64 = 20_000_000;

/// The longest simulated time after the trace's last event: a policy that never finishes its work must not run forever.
const MAX_OVERRUN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The inputs of a simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The pool's role, with its scaling policy.
    pub role: RolePlan,
    /// Partitions of the topic.
    pub partitions: usize,
    /// How messages are distributed over the partitions.
    pub placement: Placement,
    /// Time from a pod's creation until it joins the group: the median.
    pub start_up: Duration,
    /// Spread of that time: the standard deviation of its logarithm.
    pub start_up_spread: f64,
    /// Duration of a rebalance.
    pub rebalance: Duration,
    /// The times that decisions expect.
    pub estimates: EstimateSource,
    /// The time within which tasks should begin; a lag check more is still in time.
    pub deadline: Duration,
    /// Seed of the random numbers: start-up times, partitions by hash, the pods that KEDA's model removes.
    pub seed: u64,
    /// Arriving tasks, and outages of Kafka.
    pub trace: Trace,
}

/// How messages are distributed over the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// As the API does it, to the worker that is expected to begin the message first
    Placed,
    /// By the hash of a random key, as other producers do
    Hashed,
}

/// Where the times come from that decisions expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EstimateSource {
    /// They are known.
    Given(Estimates),
    /// They are learned from the simulated workers, except those that the pool declares.
    Learned,
}

/// Why a scenario cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The topic has no partitions.
    #[error("a topic has at least one partition; fix: --partitions 24")]
    NoPartitions,
    /// The simulation would take too long.
    #[error(
        "{readings} readings are more than {MAX_READINGS}; fix: use a longer --lag-check-seconds or a shorter trace"
    )]
    TooLong {
        /// The number of readings it would take.
        readings: u64,
    },
}

impl Scenario {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        if self.partitions == 0 {
            return Err(ScenarioError::NoPartitions);
        }
        let readings = self.end().as_millis() / self.lag_check_ms();
        if readings > MAX_READINGS {
            return Err(ScenarioError::TooLong { readings });
        }
        Ok(())
    }

    /// When a simulation ends that does not finish its work.
    pub(super) fn end(&self) -> Moment {
        self.trace.end() + MAX_OVERRUN
    }

    /// Time between two readings in milliseconds, at least 1.
    pub(super) fn lag_check_ms(&self) -> u64 {
        u64::try_from(self.role.lag_check_period.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The longest wait that is in time.
    pub(super) fn in_time(&self) -> Duration {
        self.deadline + self.role.lag_check_period
    }
}
