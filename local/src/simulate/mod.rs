//! A simulated pool under the real decisions: shows what a policy does with a trace of arriving tasks.
//!
//! Decisions are those of [`separation_operator::decide`], made once per lag check period; there are no scaling
//! rules here. The cluster is a model: pods take a fixed time to start, tasks take the time in the trace, and a
//! rebalance takes a fixed time and does not move running tasks. The same inputs always give the same report.

mod arguments;
mod pool;
mod report;
mod scenario;
mod trace;

#[cfg(test)]
mod tests;

use std::time::Duration;

use separation_operator::decide::{Explanation, History, Mode, Moment, decide};

pub use arguments::SimulateArguments;
pub use report::{ReplicaChange, Report, Sample, WaitingTimes, WorkerHours};
pub use scenario::{Scenario, ScenarioError};
pub use trace::{Arrival, Synthetic, Trace, TraceError, TraceEvent};

use pool::SimulatedPool;
use scenario::MAX_READINGS;

/// The longest simulated time after the trace's last event: a policy that never finishes its work must not run forever.
const MAX_OVERRUN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs a simulation.
///
/// # Errors
/// When the scenario cannot be simulated.
pub fn simulate(scenario: &Scenario) -> Result<Report, ScenarioError> {
    if scenario.partitions == 0 {
        return Err(ScenarioError::NoPartitions);
    }
    let interval = u64::try_from(scenario.lag_check_period.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let end = scenario.trace.end() + MAX_OVERRUN;
    let readings = end.as_millis() / interval;
    if readings > MAX_READINGS {
        return Err(ScenarioError::TooLong { readings });
    }
    let mut pool = SimulatedPool::new(scenario);
    let mut report = report::Recorder::default();
    let mut history = History::default();
    let mut now = Moment::default();
    loop {
        pool.advance(now);
        let observation = pool.observe(now);
        let mut decision = decide(&scenario.policy, &observation, history, now);
        report.record(now, &decision);
        while decision
            .execute_next(now, |write| pool.apply(write, now))
            .is_some()
        {}
        history = decision.history;
        if now >= end || (pool.finished(now) && is_final(scenario, &decision.explanation)) {
            break;
        }
        now = now + Duration::from_millis(interval);
    }
    Ok(report.finish(scenario, &pool, now))
}

/// Whether no further change is expected.
fn is_final(scenario: &Scenario, explanation: &Explanation) -> bool {
    explanation.limited_need == Some(explanation.current) || scenario.policy.mode != Mode::Auto
}
