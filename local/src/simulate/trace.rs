//! The events of a simulation as they are recorded: arriving tasks, and times when Kafka cannot be read.

use std::fmt::Write as _;
use std::time::Duration;

use separation_operator::decide::Moment;
use serde::{Deserialize, Serialize};

use super::random::Rng;

/// The most tasks of one trace: one task per second for a week is 604,800.
pub(super) const MAX_TASKS: u64 = 1_200_000;

/// The latest moment of a trace, in seconds: 60 days.
const MAX_SECONDS: f64 = 60.0 * 86_400.0;

/// First line of a trace in CSV.
const CSV_HEADER: &str = "arrival_seconds,task_seconds";

/// The most characters of a line that an error quotes.
const QUOTED: usize = 40;

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
    /// A CSV file has no header, or another one.
    #[error("line {line} is `{text}` and not the header; fix: begin the file with `{CSV_HEADER}`")]
    Header {
        /// The line's number, from 1.
        line: usize,
        /// The line's beginning.
        text: String,
    },
    /// A line of a CSV file is not two numbers.
    #[error("line {line} is `{text}` and not two numbers; fix: write `{CSV_HEADER}`, such as 12.5,30")]
    Row {
        /// The line's number, from 1.
        line: usize,
        /// The line's beginning.
        text: String,
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

impl Trace {
    /// When the last task arrives, or the last outage ends.
    pub fn end(&self) -> Moment {
        let arrivals = self.arrivals.iter().map(|arrival| arrival.at);
        let outages = self.outages.iter().map(|(_, until)| *until);
        arrivals.chain(outages).max().unwrap_or_default()
    }

    /// Parses a recorded trace: CSV if its first line is the header, else JSON lines. Empty lines and lines that start
    /// with # are skipped. Tasks of JSON lines without `task_seconds` need `task`.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &str, task: Duration) -> Result<Self, TraceError> {
        match lines(text).next() {
            Some((_, CSV_HEADER)) => Self::parse_csv(text),
            _ => Self::parse_json(text, task),
        }
    }

    /// Parses a trace in CSV, with the header `arrival_seconds,task_seconds`.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse_csv(text: &str) -> Result<Self, TraceError> {
        let mut lines = lines(text);
        match lines.next() {
            Some((_, CSV_HEADER)) => {}
            Some((line, other)) => {
                return Err(TraceError::Header {
                    line,
                    text: quoted(other),
                });
            }
            None => {
                return Err(TraceError::Header {
                    line: 1,
                    text: String::new(),
                });
            }
        }
        let mut trace = Self::default();
        for (line, content) in lines {
            let numbers = content.split_once(',').and_then(|(at, task)| {
                Some((at.trim().parse::<f64>().ok()?, task.trim().parse::<f64>().ok()?))
            });
            let (at, task) = numbers.ok_or_else(|| TraceError::Row {
                line,
                text: quoted(content),
            })?;
            let (at, task) = (Moment::default() + time(line, at)?, time(line, task)?);
            trace.add(1, Arrival { at, task })?;
        }
        Ok(trace.sorted())
    }

    fn parse_json(text: &str, task: Duration) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        for (line, content) in lines(text) {
            let event: TraceEvent =
                serde_json::from_str(content).map_err(|source| TraceError::Line { line, source })?;
            let at = Moment::default() + time(line, event.at_seconds)?;
            let task = event.task_seconds.map_or(Ok(task), |task| time(line, task))?;
            trace.add(event.tasks, Arrival { at, task })?;
            if let Some(outage) = event.kafka_away_seconds {
                trace.outages.push((at, at + time(line, outage)?));
            }
        }
        Ok(trace.sorted())
    }

    /// The tasks in CSV.
    pub(super) fn csv(&self) -> String {
        let mut text = format!("{CSV_HEADER}\n");
        for Arrival { at, task } in &self.arrivals {
            let at = at.as_millis() as f64 / 1_000.0;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{at},{}", task.as_secs_f64());
        }
        text
    }

    /// Adds tasks that arrive together.
    pub(super) fn add(&mut self, tasks: u64, arrival: Arrival) -> Result<(), TraceError> {
        if tasks > MAX_TASKS.saturating_sub(self.arrivals.len() as u64) {
            return Err(TraceError::TooMany);
        }
        self.arrivals.extend((0..tasks).map(|_| arrival));
        Ok(())
    }

    pub(super) fn sorted(mut self) -> Self {
        self.arrivals.sort_by_key(|arrival| arrival.at);
        self
    }

    /// Multiplies the time of each task by a log-normal factor with median 1; `spread` is the standard deviation of its
    /// logarithm.
    pub(super) fn spread_tasks(&mut self, spread: f64, seed: u64) {
        let mut rng = Rng::new(seed);
        for arrival in &mut self.arrivals {
            arrival.task = arrival.task.mul_f64(rng.log_normal(spread));
        }
    }

    /// The shortest time that `percent` of the tasks do not exceed; none without tasks.
    pub(super) fn task_percentile(&self, percent: usize) -> Option<Duration> {
        let mut tasks: Vec<Duration> = self.arrivals.iter().map(|arrival| arrival.task).collect();
        tasks.sort_unstable();
        let rank = (tasks.len() * percent).div_ceil(100).saturating_sub(1);
        tasks.get(rank).copied()
    }
}

/// Lines with their numbers, from 1, without empty ones and comments.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .map(|(line, content)| (line, content.trim()))
        .filter(|(_, content)| !content.is_empty() && !content.starts_with('#'))
}

fn time(line: usize, seconds: f64) -> Result<Duration, TraceError> {
    let sane = (0.0..=MAX_SECONDS).contains(&seconds);
    sane.then(|| Duration::from_secs_f64(seconds))
        .ok_or(TraceError::Time { line, seconds })
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Trace::parse(text, Duration::from_secs(1))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn invalid_json_lines_are_named() {
        assert!(
            refused("{\"at_seconds\": 1}\n{\"at\": 2}").starts_with("line 2 is not a valid event; fix: ")
        );
        assert!(refused("{\"at_seconds\": -1}").starts_with("line 1: -1 s is not between"));
        assert!(refused("{\"at_seconds\": 1e300}").starts_with("line 1: "));
        assert!(refused("{\"at_seconds\": 1, \"tasks\": 99999999999}").starts_with("more than"));
    }

    #[test]
    fn invalid_csv_lines_are_named() {
        let csv = |rows: &str| refused(&format!("# recorded\n{CSV_HEADER}\n{rows}"));
        assert!(csv("0,30\n\n12.5").starts_with("line 5 is `12.5` and not two numbers; fix: "));
        assert!(csv("0,30\n1,x").starts_with("line 4 is `1,x` and not two numbers"));
        assert!(csv("0,30,1").starts_with("line 3 is `0,30,1` and not two numbers"));
        assert!(csv("5,-1").starts_with("line 3: -1 s is not between"));
        assert!(csv("nan,1").starts_with("line 3: NaN s is not between"));
        assert!(csv(&"9".repeat(99)).contains(&format!("`{}`", "9".repeat(QUOTED))));
        let header = |text: &str| Trace::parse_csv(text).unwrap_err().to_string();
        assert!(header("at,task\n0,1").starts_with("line 1 is `at,task` and not the header; fix: "));
        assert!(header("").starts_with("line 1 is `` and not the header"));
    }

    #[test]
    fn csv_and_json_lines_of_the_same_tasks_are_the_same_trace() {
        let csv = Trace::parse("arrival_seconds,task_seconds\n90.5, 400\n0,30\n", Duration::ZERO).unwrap();
        let json =
            "{\"at_seconds\": 0, \"tasks\": 1}\n{\"at_seconds\": 90.5, \"tasks\": 1, \"task_seconds\": 400}";
        assert_eq!(csv, Trace::parse(json, Duration::from_secs(30)).unwrap());
        assert_eq!(csv, Trace::parse(&csv.csv(), Duration::ZERO).unwrap());
    }

    #[test]
    fn a_spread_keeps_the_median_and_its_seed_gives_the_same_times() {
        let task = Duration::from_secs(100);
        let mut trace = Trace::default();
        trace
            .add(
                4_000,
                Arrival {
                    at: Moment::default(),
                    task,
                },
            )
            .unwrap();
        let mut again = trace.clone();
        trace.spread_tasks(0.5, 3);
        again.spread_tasks(0.5, 3);
        assert_eq!(trace, again);
        let seconds = |percent| trace.task_percentile(percent).unwrap().as_secs_f64();
        assert!((95.0..105.0).contains(&seconds(50)), "{}", seconds(50));
        // e^(0.5 x 1.645) is 2.28.
        assert!((215.0..240.0).contains(&seconds(95)), "{}", seconds(95));
    }
}
