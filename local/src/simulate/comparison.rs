//! Several policies on one trace: what each costs, and how long tasks wait under it.

use std::fmt;

use separation_operator::decide::Target;
use serde::Serialize;

use super::keda;
use super::operate::operate;
use super::optimum::optimum;
use super::outcome::{Outcome, Waits};
use super::scenario::{Scenario, ScenarioError};

/// A policy to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparedPolicy {
    /// The operator's decisions with this target.
    Operator(Target),
    /// A model of KEDA.
    Keda,
    /// The optimum in hindsight of a policy that lets no task wait.
    Optimum,
}

impl fmt::Display for ComparedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(target) => write!(f, "{target}"),
            Self::Keda => f.write_str("KEDA, modeled from its source"),
            Self::Optimum => f.write_str("optimum in hindsight"),
        }
    }
}

/// The results of several policies on one trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Tasks of the trace.
    pub tasks: u64,
    /// The time within which tasks should begin, in seconds.
    pub deadline_seconds: f64,
    /// Time between two readings of lag, in seconds: a task that begins that much after the deadline is in time.
    pub lag_check_seconds: f64,
    /// One for each policy, in the order given.
    pub policies: Vec<PolicyResult>,
}

/// The result of one policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyResult {
    /// The policy.
    pub policy: String,
    /// From each pod's creation to its end.
    pub gpu_hours: f64,
    /// GPU-hours by those of the optimum, which lets no task wait: a policy that does may need less.
    pub ratio_to_optimum: f64,
    /// Share of all tasks that began in time.
    pub begun_in_time_percent: f64,
    /// Waits of the tasks that were started; none if none was.
    pub wait: Option<Waits>,
    /// Pods that were started.
    pub starts: u64,
    /// Work on tasks that a scale-down ended.
    pub gpu_seconds_lost: f64,
    /// Tasks that were completed.
    pub completed_tasks: u64,
    /// Starts of a task after its first one.
    pub repeated_starts: u64,
}

/// A policy and what it did.
#[derive(Debug, Clone)]
pub(super) struct PolicyRun {
    pub(super) policy: ComparedPolicy,
    pub(super) outcome: Outcome,
}

/// Runs the policies.
///
/// # Errors
/// When the scenario cannot be simulated.
pub(super) fn run_policies(
    scenario: &Scenario,
    policies: &[ComparedPolicy],
) -> Result<Vec<PolicyRun>, ScenarioError> {
    scenario.check()?;
    let run = |policy: &ComparedPolicy| PolicyRun {
        policy: *policy,
        outcome: match policy {
            ComparedPolicy::Operator(target) => run_operator(scenario, *target),
            ComparedPolicy::Keda => keda::run(scenario),
            ComparedPolicy::Optimum => optimum(scenario),
        },
    };
    Ok(policies.iter().map(run).collect())
}

fn run_operator(scenario: &Scenario, target: Target) -> Outcome {
    let mut scenario = scenario.clone();
    scenario.role.policy.target = target;
    let operated = operate(&scenario, None, |_| {});
    operated.pool.finish(operated.end)
}

impl Comparison {
    pub(super) fn new(scenario: &Scenario, runs: &[PolicyRun]) -> Self {
        let optimum = optimum(scenario).gpu_hours();
        let result = |run: &PolicyRun| {
            let outcome = &run.outcome;
            PolicyResult {
                policy: run.policy.to_string(),
                gpu_hours: outcome.gpu_hours(),
                ratio_to_optimum: outcome.gpu_hours() / optimum.max(f64::MIN_POSITIVE),
                begun_in_time_percent: 100.0 * outcome.share_within(scenario.in_time()),
                wait: outcome.waits(),
                starts: outcome.starts,
                gpu_seconds_lost: outcome.lost.as_secs_f64(),
                completed_tasks: outcome.completed,
                repeated_starts: outcome.repeated,
            }
        };
        Self {
            tasks: scenario.trace.arrivals.len() as u64,
            deadline_seconds: scenario.deadline.as_secs_f64(),
            lag_check_seconds: scenario.role.lag_check_period.as_secs_f64(),
            policies: runs.iter().map(result).collect(),
        }
    }
}

/// Compares the policies on the scenario's trace.
///
/// # Errors
/// When the scenario cannot be simulated.
pub fn compare(scenario: &Scenario, policies: &[ComparedPolicy]) -> Result<Comparison, ScenarioError> {
    Ok(Comparison::new(scenario, &run_policies(scenario, policies)?))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<31} {:>9} {:>6} {:>8} {:>9} {:>7} {:>7} {:>7} {:>7} {:>10}",
            "policy",
            "GPU-hours",
            "ratio",
            "in time",
            "mean wait",
            "p50",
            "p95",
            "p99",
            "starts",
            "GPU-s lost"
        )?;
        for result in &self.policies {
            let seconds = |wait: fn(&Waits) -> f64| {
                let wait = result.wait.as_ref().map(wait);
                wait.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"))
            };
            writeln!(
                f,
                "{:<31} {:>9.2} {:>6.2} {:>6.2} % {:>9} {:>7} {:>7} {:>7} {:>7} {:>10.0}",
                result.policy,
                result.gpu_hours,
                result.ratio_to_optimum,
                result.begun_in_time_percent,
                seconds(|wait| wait.mean_seconds),
                seconds(|wait| wait.p50_seconds),
                seconds(|wait| wait.p95_seconds),
                seconds(|wait| wait.p99_seconds),
                result.starts,
                result.gpu_seconds_lost
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "in time  begun within {} s and one lag check of {} s; {} tasks",
            self.deadline_seconds, self.lag_check_seconds, self.tasks
        )?;
        writeln!(
            f,
            "ratio    to the optimum in hindsight, which lets no task wait: a policy that does may need less"
        )
    }
}
