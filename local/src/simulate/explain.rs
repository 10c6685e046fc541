//! A decision of a simulation, step by step.

use std::fmt::Write as _;

use separation_operator::decide::{self, Moment};

use super::operate::{Reading, operate};
use super::scenario::{Scenario, ScenarioError};

/// The first decision at or after `at`, with the schedule behind it; none if the simulation ends before.
///
/// # Errors
/// When the scenario cannot be simulated.
pub(super) fn explain(scenario: &Scenario, at: Moment) -> Result<Option<String>, ScenarioError> {
    scenario.check()?;
    let mut text = None;
    operate(scenario, Some(at), |reading| {
        if reading.at >= at && text.is_none() {
            text = Some(describe(reading));
        }
    });
    Ok(text)
}

fn describe(reading: &Reading<'_>) -> String {
    let explanation = &reading.decision.explanation;
    let seconds = reading.at.as_millis() as f64 / 1_000.0;
    let mut text = format!("decision at {seconds} s: {}, {explanation}\n", explanation.reason);
    for line in decide::explain(reading.policy, reading.observation, reading.at) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {line}");
    }
    text
}
