//! What happens in a simulation: tasks that arrive, and readings that fail. Recorded, or made up from a seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::Moment;

/// The most tasks of one trace: a week of one task each second, and more than half a million beside.
const MAX_TASKS: u64 = 1_200_000;

/// The latest moment of a trace, in seconds: 60 days.
const MAX_SECONDS: f64 = 60.0 * 86_400.0;

/// What happens, in order of time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// Tasks.
    pub arrivals: Vec<Arrival>,
    /// When Kafka cannot be read: from, until.
    pub outages: Vec<(Moment, Moment)>,
}

/// A task that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Moment,
    /// How long a worker takes for it.
    pub task: Duration,
}

/// One line of a recorded trace.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Seconds since the trace's start.
    pub at_seconds: f64,
    /// Tasks that arrive together.
    #[serde(default)]
    pub tasks: u64,
    /// How long a worker takes for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_seconds: Option<f64>,
    /// How long Kafka cannot be read from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka_away_seconds: Option<f64>,
}

/// A line of a trace that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It is no event.
    #[error(
        "line {line} is no event; fix: write {{\"at_seconds\": 12.5, \"tasks\": 24}}, with task_seconds or kafka_away_seconds \
         where needed"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What was met.
        source: serde_json::Error,
    },
    /// It has a time that is negative or beyond 60 days.
    #[error(
        "line {line}: {seconds} s is not between 0 and 60 days; fix: count seconds from the trace's start"
    )]
    Time {
        /// Its number, from 1.
        line: usize,
        /// The time.
        seconds: f64,
    },
    /// There are too many.
    #[error("more than {MAX_TASKS} tasks; fix: a shorter trace")]
    TooMany,
}

/// A made-up trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    /// How long tasks arrive.
    pub length: Duration,
    /// How many arrive in an hour, at random moments.
    pub tasks_per_hour: u32,
    /// How many arrive together, once in a while.
    pub burst: u32,
    /// Time between two bursts; the first comes at once.
    pub burst_every: Duration,
    /// How long a worker takes for a task, in the middle; single ones take from half of it to one and a half.
    pub task: Duration,
    /// What chance starts from.
    pub seed: u64,
}

impl Trace {
    /// When the last task arrives, or Kafka comes back for the last time.
    pub fn end(&self) -> Moment {
        let arrivals = self.arrivals.iter().map(|arrival| arrival.at);
        let outages = self.outages.iter().map(|(_, until)| *until);
        arrivals.chain(outages).max().unwrap_or_default()
    }

    /// A recorded trace: one JSON object a line; empty lines and lines that start with # are skipped. Tasks without a time
    /// of their own take `task`.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(text: &str, task: Duration) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut tasks = 0_u64;
        for (line, content) in (1..).zip(text.lines()) {
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let event: Event =
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
            if let Some(away) = event.kafka_away_seconds {
                trace.outages.push((at, at + time(away)?));
            }
        }
        trace.arrivals.sort_by_key(|arrival| arrival.at);
        Ok(trace)
    }
}

impl Synthetic {
    /// The trace.
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
        let mut chance = Chance(self.seed);
        let mut trace = Trace::default();
        let steady = f64::from(self.tasks_per_hour) * hours;
        for _ in 0..steady as u64 {
            let at = Moment::default() + self.length.mul_f64(chance.next());
            trace.arrivals.push(self.arrival(at, &mut chance));
        }
        for number in 0..bursts {
            let at = Moment::default() + self.burst_every * u32::try_from(number).unwrap_or(u32::MAX);
            for _ in 0..self.burst {
                trace.arrivals.push(self.arrival(at, &mut chance));
            }
        }
        trace.arrivals.sort_by_key(|arrival| arrival.at);
        Ok(trace)
    }

    fn arrival(&self, at: Moment, chance: &mut Chance) -> Arrival {
        let task = self.task.mul_f64(0.5 + chance.next());
        // Whole milliseconds, as all times here.
        let task = Duration::from_millis(u64::try_from(task.as_millis()).unwrap_or(u64::MAX));
        Arrival { at, task }
    }
}

/// Chance that a seed repeats: SplitMix64 (Steele, Lea and Flood 2014).
struct Chance(u64);

impl Chance {
    /// Evenly from 0 to 1, 1 excluded.
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
