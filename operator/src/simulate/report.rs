//! What came of a simulation: waiting times, worker-hours, replicas over time, reasons.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Scenario;
use super::pool::Pool;
use crate::decide::{Decision, Moment, Reason, Write};

/// Rows of the table of replicas over time.
const ROWS: usize = 24;

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Simulated time, in seconds.
    pub simulated_seconds: f64,
    /// Tasks of the trace.
    pub tasks: u64,
    /// Tasks that nobody had started when the simulation gave up.
    pub unstarted_tasks: u64,
    /// From a task's arrival to its start.
    pub waiting: Option<Waiting>,
    /// Workers that were paid for.
    pub worker_hours: WorkerHours,
    /// The most workers at once that were asked for.
    pub peak_replicas: u32,
    /// Writes of replicas.
    pub changes: Vec<Change>,
    /// Replicas over time.
    pub samples: Vec<Sample>,
    /// How many readings ended with each reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Waiting times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Waiting {
    /// Half of the tasks waited no longer.
    pub median_seconds: f64,
    /// 95 of 100 tasks waited no longer.
    pub p95_seconds: f64,
    /// No task waited longer.
    pub max_seconds: f64,
}

/// Workers that were paid for, in hours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorkerHours {
    /// From each pod's creation to its end.
    pub total: f64,
    /// On tasks: what workers that start at once and never wait would have taken.
    pub ideal: f64,
    /// The rest.
    pub wasted: f64,
}

/// A write of replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// Before.
    pub from: u32,
    /// After.
    pub to: u32,
    /// Why.
    pub reason: &'static str,
    /// The same as a sentence.
    pub message: String,
}

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// Tasks not yet finished; none when that could not be read.
    pub lag: Option<u64>,
    /// Workers asked for.
    pub desired: u32,
    /// Workers that are ready.
    pub ready: u32,
    /// Workers that finish their last task.
    pub draining: u32,
    /// Why there are as many as there are.
    pub reason: &'static str,
}

/// Collects what a report needs while a simulation runs.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    changes: Vec<Change>,
    samples: Vec<Sample>,
    reasons: BTreeMap<Reason, u64>,
    peak: u32,
}

impl Recorder {
    pub(super) fn note(&mut self, now: Moment, decision: &Decision) {
        let explanation = &decision.explanation;
        *self.reasons.entry(explanation.reason).or_default() += 1;
        self.peak = self.peak.max(explanation.desired);
        let to = decision.plan.iter().find_map(|write| match write {
            Write::SetReplicas(to) => Some(*to),
            Write::Annotate(_) | Write::Unannotate(_) => None,
        });
        if let Some(to) = to {
            self.changes.push(Change {
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
                .work
                .map(|work| u64::try_from(work.messages).unwrap_or(u64::MAX)),
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

    pub(super) fn finish(self, scenario: &Scenario, pool: &Pool<'_>, now: Moment) -> Report {
        let total = hours(pool.lived_until(now));
        let ideal = hours(pool.worked);
        Report {
            simulated_seconds: now.as_millis() as f64 / 1_000.0,
            tasks: scenario.trace.arrivals.len() as u64,
            unstarted_tasks: pool.unstarted(),
            waiting: waiting(pool.waited.clone()),
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

fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}

fn waiting(mut waited: Vec<u64>) -> Option<Waiting> {
    waited.sort_unstable();
    let last = waited.len().checked_sub(1)?;
    // The nearest rank: the smallest time that so many of a hundred did not exceed.
    let percentile = |percent: usize| {
        let rank = (waited.len() * percent).div_ceil(100).saturating_sub(1);
        waited[rank.min(last)] as f64 / 1_000.0
    };
    Some(Waiting {
        median_seconds: percentile(50),
        p95_seconds: percentile(95),
        max_seconds: percentile(100),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "     time     lag desired ready draining  reason")?;
        for sample in self.rows() {
            let lag = sample.lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string());
            writeln!(
                f,
                "{:>9} {lag:>7} {:>7} {:>5} {:>8}  {}",
                clock(sample.at_ms),
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
            clock((self.simulated_seconds * 1_000.0) as u64)
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
            "worker-hours   {:.2}, of which {:.2} on tasks and {:.2} ({:.0} %) wasted",
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
    /// As many samples as there are rows, evenly over those at which replicas changed.
    fn rows(&self) -> impl Iterator<Item = &Sample> {
        let mut last = None;
        let telling: Vec<&Sample> = self
            .samples
            .iter()
            .filter(|sample| last.replace(sample.desired) != Some(sample.desired))
            .collect();
        let step = telling.len().div_ceil(ROWS).max(1);
        let last_row = (telling.len() > 1 && !(telling.len() - 1).is_multiple_of(step))
            .then(|| telling.last().copied())
            .flatten();
        telling.into_iter().step_by(step).chain(last_row)
    }
}

fn clock(millis: u64) -> String {
    let seconds = millis / 1_000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
