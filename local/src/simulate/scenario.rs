//! The inputs of a simulation.

use std::time::Duration;

use separation_operator::decide::Policy;

use super::trace::Trace;

/// The most readings in one simulation: 30 days at the default period of 2 s are 1.3 million.
pub(super) const MAX_READINGS: u64 = 20_000_000;

/// The inputs of a simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The pool's scaling policy.
    pub policy: Policy,
    /// Time between two readings.
    pub lag_check_period: Duration,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Time from a pod's creation until it joins the group.
    pub start_up: Duration,
    /// Duration of a rebalance.
    pub rebalance: Duration,
    /// Arriving tasks, and outages of Kafka.
    pub trace: Trace,
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
