//! The report of a simulation: waiting times, worker-hours, replicas over time, reasons.

use std::collections::BTreeMap;
use std::fmt;

use separation_operator::decide::{Moment, Reason, Write};
use serde::Serialize;

use super::operate::{Reading, operate};
use super::outcome::{Outcome, hours};
use super::scenario::{Scenario, ScenarioError};

/// Rows of the table of replicas over time.
const ROWS: usize = 24;

/// The result of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Simulated time, in seconds.
    pub simulated_seconds: f64,
    /// Tasks of the trace.
    pub tasks: u64,
    /// Tasks that no worker had started when the simulation ended.
    pub unstarted_tasks: u64,
    /// Time from a task's arrival to its start; `None` if no task was started.
    pub waiting: Option<WaitingTimes>,
    /// Hours of workers.
    pub worker_hours: WorkerHours,
    /// The highest desired replicas.
    pub peak_replicas: u32,
    /// Writes of replicas.
    pub changes: Vec<ReplicaChange>,
    /// Replicas over time.
    pub samples: Vec<Sample>,
    /// The number of readings with each reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Waiting times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WaitingTimes {
    /// The median.
    pub median_seconds: f64,
    /// The 95th percentile, by nearest rank.
    pub p95_seconds: f64,
    /// The maximum.
    pub max_seconds: f64,
}

/// Hours of workers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorkerHours {
    /// From each pod's creation to its end.
    pub total: f64,
    /// Time on tasks: the total of workers that start immediately and are never idle.
    pub ideal: f64,
    /// The difference of the two.
    pub wasted: f64,
}

/// A write of replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaChange {
    /// Simulated time, in milliseconds.
    pub at_ms: u64,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
    /// The decision's reason.
    pub reason: &'static str,
    /// The decision's message.
    pub message: String,
}

/// The state after a reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Simulated time, in milliseconds.
    pub at_ms: u64,
    /// The lag; `None` if it could not be read.
    pub lag: Option<u64>,
    /// Desired replicas.
    pub desired: u32,
    /// Ready replicas.
    pub ready: u32,
    /// Draining replicas.
    pub draining: u32,
    /// The decision's reason.
    pub reason: &'static str,
}

/// Runs a simulation of the pool's policy.
///
/// # Errors
/// When the scenario cannot be simulated.
pub fn simulate(scenario: &Scenario) -> Result<Report, ScenarioError> {
    Ok(report(scenario)?.0)
}

/// The report, and what it was made from.
pub(super) fn report(scenario: &Scenario) -> Result<(Report, Outcome), ScenarioError> {
    scenario.check()?;
    let mut recorder = Recorder::default();
    let operated = operate(scenario, None, |reading| recorder.record(reading));
    let outcome = operated.pool.finish(operated.end);
    Ok((recorder.finish(scenario, &outcome, operated.end), outcome))
}

/// Collects the report's data during a simulation.
#[derive(Debug, Default)]
struct Recorder {
    changes: Vec<ReplicaChange>,
    samples: Vec<Sample>,
    reasons: BTreeMap<Reason, u64>,
    peak: u32,
}

impl Recorder {
    fn record(&mut self, reading: &Reading<'_>) {
        let (now, decision) = (reading.at, reading.decision);
        let explanation = &decision.explanation;
        *self.reasons.entry(explanation.reason).or_default() += 1 + reading.repeated;
        self.peak = self.peak.max(explanation.desired);
        let to = decision.plan.iter().find_map(|write| match write {
            Write::SetReplicas(to) => Some(*to),
            Write::Annotate(_) | Write::Unannotate(_) => None,
        });
        if let Some(to) = to {
            self.changes.push(ReplicaChange {
                at_ms: now.as_millis(),
                from: explanation.current,
                to,
                reason: explanation.reason.name(),
                message: explanation.to_string(),
            });
        }
        let sample = Sample {
            at_ms: now.as_millis(),
            lag: explanation
                .lag
                .map(|lag| u64::try_from(lag.messages).unwrap_or(u64::MAX)),
            desired: explanation.desired,
            ready: explanation.pods.ready,
            draining: explanation.pods.draining,
            reason: explanation.reason.name(),
        };
        let same = |last: &Sample| {
            Sample {
                at_ms: last.at_ms,
                ..sample.clone()
            } == *last
        };
        if !self.samples.last().is_some_and(same) {
            self.samples.push(sample);
        }
    }

    fn finish(self, scenario: &Scenario, outcome: &Outcome, end: Moment) -> Report {
        let total = outcome.gpu_hours();
        let ideal = hours(outcome.task_time(&scenario.trace));
        Report {
            simulated_seconds: end.as_millis() as f64 / 1_000.0,
            tasks: scenario.trace.arrivals.len() as u64,
            unstarted_tasks: outcome.unstarted(),
            waiting: outcome.waits().map(|waits| WaitingTimes {
                median_seconds: waits.p50_seconds,
                p95_seconds: waits.p95_seconds,
                max_seconds: waits.max_seconds,
            }),
            worker_hours: WorkerHours {
                total,
                ideal,
                wasted: (total - ideal).max(0.0),
            },
            peak_replicas: self.peak,
            changes: self.changes,
            samples: self.samples,
            reasons: self
                .reasons
                .iter()
                .map(|(reason, count)| (reason.name(), *count))
                .collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "     time     lag desired ready draining  reason")?;
        for sample in self.rows() {
            let lag = sample.lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string());
            writeln!(
                f,
                "{:>9} {lag:>7} {:>7} {:>5} {:>8}  {}",
                format_time(sample.at_ms),
                sample.desired,
                sample.ready,
                sample.draining,
                sample.reason
            )?;
        }
        writeln!(f)?;
        let changes = self.changes.len();
        writeln!(
            f,
            "tasks          {} in {}",
            self.tasks,
            format_time((self.simulated_seconds * 1_000.0) as u64)
        )?;
        if self.unstarted_tasks > 0 {
            writeln!(f, "never started  {}", self.unstarted_tasks)?;
        }
        if let Some(waiting) = self.waiting {
            writeln!(
                f,
                "waiting        median {:.1} s, 95th percentile {:.1} s, longest {:.1} s",
                waiting.median_seconds, waiting.p95_seconds, waiting.max_seconds
            )?;
        }
        let hours = self.worker_hours;
        writeln!(
            f,
            "worker-hours   {:.2}: {:.2} on tasks, {:.2} ({:.0} %) wasted",
            hours.total,
            hours.ideal,
            hours.wasted,
            100.0 * hours.wasted / hours.total.max(f64::MIN_POSITIVE)
        )?;
        writeln!(
            f,
            "replicas       at most {}, changed {changes} times",
            self.peak_replicas
        )?;
        let readings: u64 = self.reasons.values().sum();
        writeln!(f, "reasons        of {readings} readings")?;
        for (reason, count) in &self.reasons {
            writeln!(
                f,
                "  {reason:<20} {count:>8}  {:>5.1} %",
                100.0 * *count as f64 / readings as f64
            )?;
        }
        Ok(())
    }
}

impl Report {
    /// About [`ROWS`] samples, evenly chosen from those at which desired replicas changed, and the last one.
    fn rows(&self) -> impl Iterator<Item = &Sample> {
        let mut last = None;
        let change_points: Vec<&Sample> = self
            .samples
            .iter()
            .filter(|sample| last.replace(sample.desired) != Some(sample.desired))
            .collect();
        let step = change_points.len().div_ceil(ROWS).max(1);
        let last_row = (change_points.len() > 1 && !(change_points.len() - 1).is_multiple_of(step))
            .then(|| change_points.last().copied())
            .flatten();
        change_points.into_iter().step_by(step).chain(last_row)
    }
}

fn format_time(millis: u64) -> String {
    let seconds = millis / 1_000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
