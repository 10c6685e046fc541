//! What a policy cost, and how long tasks waited.

use std::time::Duration;

use separation_operator::decide::Moment;
use serde::Serialize;

use super::timeline::Timeline;
use super::trace::Trace;

/// The result of a policy on a trace.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Total lifetime of all pods.
    pub(super) pod_time: Duration,
    /// Time from each task's arrival to its first start, in milliseconds and in the order of the trace; none if no
    /// worker started it.
    pub(super) waits_ms: Vec<Option<u64>>,
    /// Pods that were started.
    pub(super) starts: u64,
    /// Tasks that were completed.
    pub(super) completed: u64,
    /// Starts of a task after its first one.
    pub(super) repeated: u64,
    /// Work on tasks that a scale-down ended.
    pub(super) lost: Duration,
    pub(super) timeline: Timeline,
}

/// Times from a task's arrival to its start, in seconds. Percentiles are by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Waits {
    /// The mean.
    pub mean_seconds: f64,
    /// The median.
    pub p50_seconds: f64,
    /// The 95th percentile.
    pub p95_seconds: f64,
    /// The 99th percentile.
    pub p99_seconds: f64,
    /// The maximum.
    pub max_seconds: f64,
}

impl Outcome {
    /// Before the first event of a trace.
    pub(super) fn new(trace: &Trace) -> Self {
        Self {
            pod_time: Duration::ZERO,
            waits_ms: vec![None; trace.arrivals.len()],
            starts: 0,
            completed: 0,
            repeated: 0,
            lost: Duration::ZERO,
            timeline: Timeline::new(trace.end().since(Moment::default())),
        }
    }

    /// A task is started.
    pub(super) fn begun(&mut self, task: usize, arrival: Moment, now: Moment) {
        match &mut self.waits_ms[task] {
            Some(_) => self.repeated += 1,
            wait => {
                let millis = now.as_millis().saturating_sub(arrival.as_millis());
                *wait = Some(millis);
                self.timeline.waited(arrival, millis);
            }
        }
    }

    /// None if no task was started.
    pub(super) fn waits(&self) -> Option<Waits> {
        let mut waits: Vec<u64> = self.waits_ms.iter().flatten().copied().collect();
        waits.sort_unstable();
        let total: u64 = waits.iter().sum();
        let seconds = |percent| Some(percentile(&waits, percent)? as f64 / 1_000.0);
        Some(Waits {
            p50_seconds: seconds(50)?,
            p95_seconds: seconds(95)?,
            p99_seconds: seconds(99)?,
            max_seconds: seconds(100)?,
            mean_seconds: total as f64 / 1_000.0 / waits.len() as f64,
        })
    }

    /// Tasks that no worker started.
    pub(super) fn unstarted(&self) -> u64 {
        self.waits_ms.iter().filter(|wait| wait.is_none()).count() as u64
    }

    /// The share of the tasks that waited no longer than `limit`; 1 without tasks.
    pub(super) fn share_within(&self, limit: Duration) -> f64 {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let begun = self
            .waits_ms
            .iter()
            .flatten()
            .filter(|wait| **wait <= limit)
            .count();
        if self.waits_ms.is_empty() {
            1.0
        } else {
            begun as f64 / self.waits_ms.len() as f64
        }
    }

    /// Total time of the tasks that were started.
    pub(super) fn task_time(&self, trace: &Trace) -> Duration {
        let started = trace
            .arrivals
            .iter()
            .zip(&self.waits_ms)
            .filter(|(_, wait)| wait.is_some());
        started.map(|(arrival, _)| arrival.task).sum()
    }

    pub(super) fn gpu_hours(&self) -> f64 {
        hours(self.pod_time)
    }
}

pub(super) fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}

/// Nearest rank: the smallest of ascending values that `percent` of them do not exceed; none without values.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied()
}
