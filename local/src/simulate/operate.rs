//! Runs the model under the operator's decisions: one for each lag check period, executed as the operator does.

use std::time::Duration;

use separation_operator::decide::{
    Decision, Explanation, History, Mode, Moment, Observation, Policy, decide,
};

use super::pool::SimulatedPool;
use super::scenario::Scenario;

/// Readings without a change after which the next ones are known to decide the same, as long as nothing happens: pods
/// count as idle after two, and annotations are older than the reading after them.
const QUIET_READINGS: u32 = 3;

/// A reading and its decision, before it is executed.
pub(super) struct Reading<'a> {
    pub(super) at: Moment,
    /// Further readings that decide the same, one lag check period after another.
    pub(super) repeated: u64,
    pub(super) policy: &'a Policy,
    pub(super) observation: &'a Observation,
    pub(super) decision: &'a Decision,
}

/// The pool when all tasks are done and the decisions are final, and the time then.
pub(super) struct Operated<'a> {
    pub(super) pool: SimulatedPool<'a>,
    pub(super) end: Moment,
}

/// Runs the scenario until its work is done, or until the first reading at or after `until`. Each reading is passed to
/// `record`. Readings that cannot decide anything else are skipped.
pub(super) fn operate<'a>(
    scenario: &'a Scenario,
    until: Option<Moment>,
    mut record: impl FnMut(&Reading<'_>),
) -> Operated<'a> {
    let period = scenario.lag_check_ms();
    let end = until.unwrap_or(Moment::from_millis(u64::MAX)).min(scenario.end());
    let mut pool = SimulatedPool::new(scenario);
    let mut history = History::default();
    let mut now = Moment::default();
    let mut quiet = 0;
    loop {
        let has_changed = pool.advance(now);
        let observation = pool.observe(now);
        let policy = scenario.role.policy_with(observation.estimates);
        let mut decision = decide(&policy, &observation, history, now);
        quiet = if has_changed || !decision.plan.is_empty() {
            0
        } else {
            quiet + 1
        };
        let mut repeated = 0;
        if quiet >= QUIET_READINGS && pool.queued() == 0 {
            let next = pool.next_event().unwrap_or(end).min(end);
            // Those before the next event.
            let most = next.as_millis().saturating_sub(now.as_millis() + 1) / period;
            repeated = same_decisions(&policy, &observation, &decision, now, period, most);
        }
        record(&Reading {
            at: now,
            repeated,
            policy: &policy,
            observation: &observation,
            decision: &decision,
        });
        while decision.execute_next(now, |write| pool.apply(write)).is_some() {}
        history = decision.history;
        let is_done = pool.finished(now) && is_final(scenario, &decision.explanation);
        if now >= end || is_done {
            return Operated { pool, end: now };
        }
        now = Moment::from_millis(now.as_millis() + period * (repeated + 1));
    }
}

/// Whether no further change is expected.
fn is_final(scenario: &Scenario, explanation: &Explanation) -> bool {
    explanation.limited_need == Some(explanation.current) || scenario.role.policy.mode != Mode::Auto
}

/// How many of the next `most` readings decide the same as this one if nothing happens before them. Without queued
/// messages, decisions change with time only when a window ends, once, and so does the result here.
fn same_decisions(
    policy: &Policy,
    observation: &Observation,
    decision: &Decision,
    now: Moment,
    period: u64,
    most: u64,
) -> u64 {
    // The later readings are as fresh as this one.
    let policy = Policy {
        stale_after: Duration::MAX,
        ..*policy
    };
    let is_same = |readings: u64| {
        let later = Moment::from_millis(now.as_millis() + period * readings);
        decide(&policy, observation, decision.history.clone(), later) == *decision
    };
    if most == 0 || is_same(most) {
        return most;
    }
    let (mut same, mut differs) = (0, most);
    while differs - same > 1 {
        let middle = same + (differs - same) / 2;
        if is_same(middle) {
            same = middle;
        } else {
            differs = middle;
        }
    }
    same
}
