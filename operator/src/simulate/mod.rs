//! A made-up pool under the real decisions: what a policy does with a trace of arriving tasks.
//!
//! Decisions are those of [`crate::decide`], made at the policy's own readings; there is no rule of scaling here. The
//! cluster around them is a model: pods take a fixed time to start, tasks take the time the trace says, a rebalance takes
//! a fixed time and leaves running tasks where they are. The same inputs give the same report, always.

mod pool;
mod report;
mod trace;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::decide::{History, Mode, Moment, Policy, decide};

pub use report::{Change, Report, Sample, Waiting, WorkerHours};
pub use trace::{Arrival, Event, Synthetic, Trace, TraceError};

use pool::Pool;

/// The longest that a simulation goes on after the trace's last event: a policy that never finishes its work must not
/// simulate for ever.
const LONGEST_END: Duration = Duration::from_secs(7 * 24 * 3600);

/// The most readings in one simulation: 30 days at the default interval of 2 s are 1.3 million.
const MAX_READINGS: u64 = 20_000_000;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What the pool asks for.
    pub policy: Policy,
    /// Time between two readings.
    pub poll_interval: Duration,
    /// Partitions of the topic.
    pub partitions: usize,
    /// From a pod's creation until it joins the group.
    pub start_up: Duration,
    /// How long the group takes to share out its partitions.
    pub rebalance: Duration,
    /// Tasks, and what else happens.
    pub trace: Trace,
}

/// A scenario that cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// It has no partitions.
    #[error("a topic has at least one partition; fix: --partitions 24")]
    NoPartitions,
    /// It would take too long.
    #[error(
        "{readings} readings are more than {MAX_READINGS}; fix: a longer poll interval or a shorter trace"
    )]
    TooLong {
        /// How many readings it would take.
        readings: u64,
    },
}

/// Simulates.
///
/// # Errors
/// When the scenario makes no sense.
pub fn simulate(scenario: &Scenario) -> Result<Report, ScenarioError> {
    if scenario.partitions == 0 {
        return Err(ScenarioError::NoPartitions);
    }
    let interval = u64::try_from(scenario.poll_interval.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let end = scenario.trace.end() + LONGEST_END;
    let readings = end.as_millis() / interval;
    if readings > MAX_READINGS {
        return Err(ScenarioError::TooLong { readings });
    }
    let mut pool = Pool::new(scenario);
    let mut report = report::Recorder::default();
    let mut history = History::default();
    let mut now = Moment::default();
    loop {
        pool.advance(now);
        let observation = pool.observe(now);
        let decision = decide(&scenario.policy, &observation, history, now);
        report.note(now, &decision);
        history = decision.history;
        for write in &decision.plan {
            pool.carry_out(write, now);
            history.executed(write, now);
        }
        if now >= end || (pool.finished(now) && settled(scenario, &decision.explanation)) {
            break;
        }
        now = now + Duration::from_millis(interval);
    }
    Ok(report.finish(scenario, &pool, now))
}

/// Whether nothing more will change.
fn settled(scenario: &Scenario, explanation: &crate::decide::Explanation) -> bool {
    explanation.wanted == Some(explanation.current) || scenario.policy.mode != Mode::Active
}
