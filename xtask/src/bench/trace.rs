//! The trace of the scaling policies' benchmarks: 23 days of requests to GPUs, recorded or synthetic.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::context::Bench;
use crate::cache::sha256;
use crate::process;

/// SHA-256 of the recorded trace, in the form that the benchmarks read.
const RECORDED: &str = "2b440ae14a619baa1b16f79fd38fcfde615fa48b6f8b42922320531899d2215c";

const RECORDED_ORIGIN: &str = "successful GPU requests of Alibaba's public cluster-trace-v2026-GenAI \
    (`lora_request_trace.csv`, not part of this repository)";

/// First line of a trace.
const HEADER: &str = "arrival_seconds,task_seconds";

/// A trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// In the order of arrival.
    pub(super) tasks: Vec<Task>,
    /// A description for the document.
    pub(super) origin: String,
}

/// A task: its arrival and its time on a worker, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Task {
    pub(super) arrival: f64,
    pub(super) seconds: f64,
}

impl Trace {
    /// The trace of `--trace`, or else the synthetic one.
    pub(super) fn load(bench: &Bench<'_>) -> Result<Self> {
        let synthetic = bench.file("synthetic-trace.csv");
        if bench.trace.is_none() {
            process::read(
                bench
                    .project
                    .command(&bench.binaries()?.operator)
                    .args(["simulate", "--synthetic", "genai", "--write-trace"])
                    .arg(&synthetic),
            )?;
        }
        let file = bench.trace.as_ref().unwrap_or(&synthetic);
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let tasks = parse(&text).with_context(|| {
            format!(
                "{} is not a trace; fix: write `{HEADER}` and a line for each task, in the order of arrival",
                file.display()
            )
        })?;
        let sha256 = sha256(text.as_bytes());
        let origin = match bench.trace {
            None => "synthetic requests with the statistics of Alibaba's public cluster-trace-v2026-GenAI"
                .to_owned(),
            Some(_) if sha256 == RECORDED => RECORDED_ORIGIN.to_owned(),
            Some(_) => "requests of another trace".to_owned(),
        };
        Ok(Self {
            origin: format!("{origin}, {} tasks, SHA-256 `{sha256}`", tasks.len()),
            tasks,
        })
    }
}

fn parse(text: &str) -> Option<Vec<Task>> {
    let rows = text.strip_prefix(HEADER)?.lines().skip(1);
    let tasks = rows.map(|line| {
        let (arrival, seconds) = line.split_once(',')?;
        Some(Task {
            arrival: arrival.parse().ok()?,
            seconds: seconds.parse().ok()?,
        })
    });
    let tasks: Vec<Task> = tasks.collect::<Option<_>>()?;
    tasks.is_sorted_by_key(|task| task.arrival).then_some(tasks)
}

/// Writes tasks as a trace.
pub(super) fn write(tasks: &[Task], file: &Path) -> Result<()> {
    fs::write(file, csv(tasks)).with_context(|| format!("cannot write {}", file.display()))
}

fn csv(tasks: &[Task]) -> String {
    let mut text = format!("{HEADER}\n");
    for task in tasks {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{}", task.arrival, task.seconds);
    }
    text
}

/// The tasks that arrive during the busiest `seconds`; of several such times the last one.
pub(super) fn busiest(tasks: &[Task], seconds: f64) -> &[Task] {
    let from = |first: usize| {
        let end = tasks[first].arrival + seconds;
        let length = tasks[first..].partition_point(|task| task.arrival < end);
        &tasks[first..first + length]
    };
    let windows = (0..tasks.len()).map(from);
    windows.max_by_key(|window| window.len()).unwrap_or_default()
}

/// The same tasks `factor` times as fast, from 0 s on.
pub(super) fn faster(tasks: &[Task], factor: f64) -> Vec<Task> {
    let start = tasks.first().map_or(0.0, |task| task.arrival);
    let faster = |task: &Task| Task {
        arrival: (task.arrival - start) / factor,
        seconds: task.seconds / factor,
    };
    tasks.iter().map(faster).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(arrivals: &[f64]) -> Vec<Task> {
        let tasks = arrivals.iter().map(|arrival| Task {
            arrival: *arrival,
            seconds: 5.0,
        });
        tasks.collect()
    }

    #[test]
    fn a_written_trace_is_parsed_and_anything_else_refused() {
        let written = tasks(&[0.0, 2.5]);
        assert_eq!(parse(&csv(&written)), Some(written));
        for text in [
            "",
            "0,1\n",
            "arrival_seconds,task_seconds\n1\n",
            "arrival_seconds,task_seconds\n2,1\n1,1\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_of_the_busiest_times_is_found() {
        let all = tasks(&[0.0, 9.0, 10.0, 20.0, 25.0, 40.0]);
        assert_eq!(busiest(&all, 10.0), tasks(&[20.0, 25.0]));
        assert_eq!(busiest(&all, 11.0), tasks(&[0.0, 9.0, 10.0]));
        assert!(busiest(&[], 10.0).is_empty());
    }

    #[test]
    fn a_faster_trace_begins_at_0_and_has_shorter_tasks() {
        let expected = [(0.0, 0.5), (2.0, 0.5)].map(|(arrival, seconds)| Task { arrival, seconds });
        assert_eq!(faster(&tasks(&[100.0, 120.0]), 10.0), expected);
    }
}
