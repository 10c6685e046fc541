//! The events of a simulation, recorded or synthetic: arriving tasks, and times when Kafka cannot be read.

use std::time::Duration;

use separation_operator::decide::Moment;
use serde::{Deserialize, Serialize};

/// The most tasks of one trace: one task per second for a week is 604,800.
const MAX_TASKS: u64 = 1_200_000;

/// The latest moment of a trace, in seconds: 60 days.
const MAX_SECONDS: f64 = 60.0 * 86_400.0;

/// Events in order of time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// Arriving tasks, in order of time.
    pub arrivals: Vec<Arrival>,
    /// Times when Kafka cannot be read: start and end.
    pub outages: Vec<(Moment, Moment)>,
}

/// A task that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The time of arrival.
    pub at: Moment,
    /// The time a worker needs for it.
    pub task: Duration,
}

/// One line of a recorded trace.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceEvent {
    /// Seconds since the trace's start.
    pub at_seconds: f64,
    /// Tasks that arrive together.
    #[serde(default)]
    pub tasks: u64,
    /// The time a worker needs for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_seconds: Option<f64>,
    /// The time for which Kafka cannot be read from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka_away_seconds: Option<f64>,
}

/// Why a trace is invalid.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A line is not a valid event.
    #[error(
        "line {line} is not a valid event; fix: write {{\"at_seconds\": 12.5, \"tasks\": 24}}, with task_seconds or \
         kafka_away_seconds where needed"
    )]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A time is negative or beyond 60 days.
    #[error(
        "line {line}: {seconds} s is not between 0 and 60 days; fix: count seconds from the trace's start"
    )]
    Time {
        /// The line's number, from 1.
        line: usize,
        /// The invalid time, in seconds.
        seconds: f64,
    },
    /// The trace has too many tasks.
    #[error("more than {MAX_TASKS} tasks; fix: use a shorter trace")]
    TooMany,
}

/// Parameters of a synthetic trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    /// The time during which tasks arrive.
    pub length: Duration,
    /// Tasks per hour, at random moments.
    pub tasks_per_hour: u32,
    /// Tasks of each burst.
    pub burst: u32,
    /// Time between two bursts; the first is at the start.
    pub burst_every: Duration,
    /// The mean time a worker needs for a task; single tasks need from half to one and a half times as long.
    pub task: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Trace {
    /// When the last task arrives, or the last outage ends.
    pub fn end(&self) -> Moment {
        let arrivals = self.arrivals.iter().map(|arrival| arrival.at);
        let outages = self.outages.iter().map(|(_, until)| *until);
        arrivals.chain(outages).max().unwrap_or_default()
    }

    /// Parses a recorded trace: one JSON object per line; empty lines and lines that start with # are skipped. Tasks
    /// without `task_seconds` need `task`.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &str, task: Duration) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut tasks = 0_u64;
        for (line, content) in (1..).zip(text.lines()) {
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let event: TraceEvent =
                serde_json::from_str(content).map_err(|source| TraceError::Line { line, source })?;
            let time = |seconds: f64| {
                let sane = (0.0..=MAX_SECONDS).contains(&seconds);
                sane.then(|| Duration::from_secs_f64(seconds))
                    .ok_or(TraceError::Time { line, seconds })
            };
            let at = Moment::default() + time(event.at_seconds)?;
            let task = event.task_seconds.map_or(Ok(task), time)?;
            tasks = tasks.saturating_add(event.tasks);
            if tasks > MAX_TASKS {
                return Err(TraceError::TooMany);
            }
            trace
                .arrivals
                .extend((0..event.tasks).map(|_| Arrival { at, task }));
            if let Some(outage) = event.kafka_away_seconds {
                trace.outages.push((at, at + time(outage)?));
            }
        }
        trace.arrivals.sort_by_key(|arrival| arrival.at);
        Ok(trace)
    }
}

impl Synthetic {
    /// Generates the trace.
    ///
    /// # Errors
    /// When it would have too many tasks.
    pub fn trace(&self) -> Result<Trace, TraceError> {
        let hours = self.length.as_secs_f64() / 3600.0;
        let bursts = if self.burst == 0 {
            0
        } else {
            self.length.as_secs() / self.burst_every.as_secs().max(1) + 1
        };
        let expected = hours * f64::from(self.tasks_per_hour) + bursts as f64 * f64::from(self.burst);
        if expected > MAX_TASKS as f64 {
            return Err(TraceError::TooMany);
        }
        let mut rng = Rng(self.seed);
        let mut trace = Trace::default();
        let steady = f64::from(self.tasks_per_hour) * hours;
        for _ in 0..steady as u64 {
            let at = Moment::default() + self.length.mul_f64(rng.next());
            trace.arrivals.push(self.arrival(at, &mut rng));
        }
        for number in 0..bursts {
            let at = Moment::default() + self.burst_every * u32::try_from(number).unwrap_or(u32::MAX);
            for _ in 0..self.burst {
                trace.arrivals.push(self.arrival(at, &mut rng));
            }
        }
        trace.arrivals.sort_by_key(|arrival| arrival.at);
        Ok(trace)
    }

    fn arrival(&self, at: Moment, rng: &mut Rng) -> Arrival {
        let task = self.task.mul_f64(0.5 + rng.next());
        // Whole milliseconds, as all times here.
        let task = Duration::from_millis(u64::try_from(task.as_millis()).unwrap_or(u64::MAX));
        Arrival { at, task }
    }
}

/// Reproducible random numbers: SplitMix64 (Steele, Lea and Flood 2014).
struct Rng(u64);

impl Rng {
    /// Uniform in [0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The upper 53 bits fill the mantissa.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
