//! Times that are learned: how long tasks take, and how long new workers take to start. Plain statistics, without a clock.
//!
//! Such times spread by factors, so all statistics are of their logarithms. Values beyond Tukey's fences, two
//! interquartile ranges outside of the quartiles, do not count, so that one value in ten may be 50 times too large.
//!
//! An estimate from few observations is shrunk towards its default: with `n` observations so far,
//!
//! ```text
//! estimate = default^(1 - w) * learned^w
//! ```
//!
//! | estimate | learned | default | w |
//! |---|---|---|---|
//! | time of a task | median of the last 512 | 30 s | sqrt(n / 100), at most 1 |
//! | its tail: a factor of the time of a task | 95th percentile / median | 3 | sqrt(n / 500), at most 1 |
//! | start-up time | median of the last 64 | 60 s | n / 5, at most 1 |
//!
//! The error of a median falls with the square root of the number of observations, by which tasks count therefore. The
//! first start-ups of a pool often include pulling its image: they count less.

use std::collections::VecDeque;
use std::time::Duration;

use super::observation::Estimates;
use super::policy::DeclaredEstimates;

/// Tasks whose times are kept: enough for the 95th percentile, in 8 KiB.
const TASKS: usize = 512;

/// Start-ups whose times are kept. They change with an image or a model, and are rarer than tasks.
const STARTS: usize = 64;

/// Tasks after which the default time of a task no longer counts.
const TASKS_FOR_MEDIAN: f64 = 100.0;

/// Tasks after which the default tail no longer counts.
const TASKS_FOR_TAIL: f64 = 500.0;

/// Start-ups after which the default start-up time no longer counts.
const STARTS_FOR_MEDIAN: f64 = 5.0;

/// The quantile that is the tail of tasks.
const TAIL: f64 = 0.95;

/// Distance of a fence from its quartile, in interquartile ranges.
const FENCE: f64 = 2.0;

/// How often the fences are set: values beyond the first ones widen these.
const FENCINGS: usize = 2;

/// The shortest time that is distinguished: the status has whole seconds, and none is 0.
const SHORTEST_SECONDS: f64 = 1.0;

/// The longest time that is distinguished: a week.
const LONGEST_SECONDS: f64 = 604_800.0;

/// Times learned about the workers of one role.
#[derive(Debug, Clone)]
pub struct LearnedTimes {
    tasks: Sample,
    starts: Sample,
}

/// What was learned, as the status of a pool has it. Times are in seconds, and 0 without observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LearnedSummary {
    /// Number of tasks that were observed.
    pub tasks: u64,
    /// Median time of a task.
    pub task_seconds: u64,
    /// The 95th percentile of the times of tasks.
    pub task_tail_seconds: u64,
    /// Number of start-ups that were observed.
    pub starts: u64,
    /// Median time of a start-up.
    pub startup_seconds: u64,
}

impl Default for LearnedTimes {
    fn default() -> Self {
        Self {
            tasks: Sample::new(TASKS),
            starts: Sample::new(STARTS),
        }
    }
}

impl LearnedTimes {
    /// Continues from what was learned before. The former observations fill at most half of the sample.
    pub fn restored(before: LearnedSummary) -> Self {
        let seconds = Duration::from_secs;
        let [median, tail] = [before.task_seconds, before.task_tail_seconds].map(seconds);
        let startup = seconds(before.startup_seconds);
        Self {
            tasks: Sample::restored(TASKS, before.tasks, median, tail),
            starts: Sample::restored(STARTS, before.starts, startup, startup),
        }
    }

    /// Records the time that a task took.
    pub fn task_finished(&mut self, took: Duration) {
        self.tasks.record(took);
    }

    /// Records the time from a worker's creation until it could take a task.
    pub fn worker_started(&mut self, took: Duration) {
        self.starts.record(took);
    }

    /// The times to expect. Declared ones replace learned ones; the tail of tasks is then the declared time with the
    /// learned factor.
    pub fn estimates(&self, declared: DeclaredEstimates) -> Estimates {
        let default = Estimates::default();
        let (tasks, starts) = (self.tasks.quantiles(), self.starts.quantiles());
        let weight = |sample: &Sample, needed: f64| (sample.count as f64 / needed).min(1.0);
        let task = declared.task.unwrap_or_else(|| {
            let weight = weight(&self.tasks, TASKS_FOR_MEDIAN).sqrt();
            Duration::from_secs_f64(shrunk(log(default.task), tasks.median, weight))
        });
        let startup = declared.startup.unwrap_or_else(|| {
            let weight = weight(&self.starts, STARTS_FOR_MEDIAN);
            Duration::from_secs_f64(shrunk(log(default.startup), starts.median, weight))
        });
        let tail_factor = shrunk(
            log(default.task_tail) - log(default.task),
            tasks.tail - tasks.median,
            weight(&self.tasks, TASKS_FOR_TAIL).sqrt(),
        );
        Estimates {
            startup,
            task,
            task_tail: task.mul_f64(tail_factor),
        }
    }

    /// What was learned so far.
    pub fn summary(&self) -> LearnedSummary {
        let (tasks, starts) = (self.tasks.quantiles(), self.starts.quantiles());
        let seconds = |log: f64, sample: &Sample| match sample.count {
            0 => 0,
            _ => log.exp().round() as u64,
        };
        LearnedSummary {
            tasks: self.tasks.count,
            task_seconds: seconds(tasks.median, &self.tasks),
            task_tail_seconds: seconds(tasks.tail, &self.tasks),
            starts: self.starts.count,
            startup_seconds: seconds(starts.median, &self.starts),
        }
    }
}

/// The natural logarithm of a time in seconds.
fn log(time: Duration) -> f64 {
    time.as_secs_f64().clamp(SHORTEST_SECONDS, LONGEST_SECONDS).ln()
}

/// `default^(1 - weight) * learned^weight`, given logarithms.
fn shrunk(default: f64, learned: f64, weight: f64) -> f64 {
    ((1.0 - weight) * default + weight * learned).exp()
}

/// The last values of a time.
#[derive(Debug, Clone)]
struct Sample {
    /// The most values that are kept.
    capacity: usize,
    /// Logarithms of the values, oldest first.
    values: VecDeque<f64>,
    /// The same, ascending.
    sorted: Vec<f64>,
    /// Number of values that were ever recorded.
    count: u64,
}

/// Logarithms; 0 for an empty sample.
#[derive(Debug, Clone, Copy, Default)]
struct Quantiles {
    median: f64,
    tail: f64,
}

impl Sample {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            values: VecDeque::new(),
            sorted: Vec::new(),
            count: 0,
        }
    }

    /// A sample of `count` values with this median and tail: at most half the capacity of them, with equal distances, so
    /// that none is beyond a fence.
    fn restored(capacity: usize, count: u64, median: Duration, tail: Duration) -> Self {
        let size = usize::try_from(count).unwrap_or(usize::MAX).min(capacity / 2);
        let (median, tail) = (log(median), log(tail.max(median)));
        let [median_rank, tail_rank] = [0.5, TAIL].map(|quantile| rank(size, quantile));
        let distance = if tail_rank > median_rank {
            (tail - median) / (tail_rank - median_rank)
        } else {
            0.0
        };
        let sorted: Vec<f64> = (0..size)
            .map(|rank| median + (rank as f64 - median_rank) * distance)
            .collect();
        Self {
            capacity,
            values: sorted.iter().copied().collect(),
            sorted,
            count,
        }
    }

    fn record(&mut self, value: Duration) {
        let value = log(value);
        if self.values.len() == self.capacity
            && let Some(oldest) = self.values.pop_front()
        {
            let place = self.sorted.partition_point(|other| *other < oldest);
            self.sorted.remove(place);
        }
        self.values.push_back(value);
        let place = self.sorted.partition_point(|other| *other < value);
        self.sorted.insert(place, value);
        self.count = self.count.saturating_add(1);
    }

    /// The quantiles of the values within the fences.
    fn quantiles(&self) -> Quantiles {
        let mut values = &self.sorted[..];
        if values.is_empty() {
            return Quantiles::default();
        }
        for _ in 0..FENCINGS {
            let (first, third) = (quantile(values, 0.25), quantile(values, 0.75));
            let range = FENCE * (third - first);
            let from = values.partition_point(|value| *value < first - range);
            let to = values.partition_point(|value| *value <= third + range);
            values = &values[from..to];
        }
        Quantiles {
            median: quantile(values, 0.5),
            tail: quantile(values, TAIL),
        }
    }
}

/// The rank, from 0, of a quantile of `size` values, each of which stands for an equal part of the distribution.
fn rank(size: usize, quantile: f64) -> f64 {
    let last = size.saturating_sub(1) as f64;
    (quantile * size as f64 - 0.5).clamp(0.0, last)
}

/// A quantile of ascending values, of which there is at least one: interpolated between the two nearest.
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = rank(sorted.len(), quantile);
    let below = rank as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (rank - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests;
