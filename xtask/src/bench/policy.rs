//! Scaling policies on a trace: the operator's decisions, a model of KEDA, and the optimum, in a simulated pool.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;

use super::context::Bench;
use super::figures::Section;
use super::trace::{self, Trace};
use crate::process;

/// Start-up times in seconds, with the longest time until a task begins.
const START_UPS: [(u32, u32); 3] = [(10, 60), (60, 60), (180, 180)];

/// The start-up time whose charts are in the document.
const CHARTED: u32 = 60;

/// Duration of a rebalance in seconds, a part of the start-up time.
const REBALANCE: u32 = 3;

const PARTITIONS: &str = "48";
const MAX_REPLICAS: &str = "24";

const DAY_SECONDS: f64 = 86_400.0;

/// Charts that `simulate --plots` writes.
const CHARTS: [(&str, &str); 4] = [
    ("replicas.svg", "Pods over time"),
    ("lag.svg", "Lag over time"),
    ("waits.svg", "Longest wait over time"),
    (
        "gpu-hours.svg",
        "GPU-hours by the share of tasks that begin in time",
    ),
];

/// The output of `simulate --policies`.
#[derive(Debug, Deserialize)]
pub(super) struct Comparison {
    tasks: f64,
    /// In the order of the arguments.
    pub(super) policies: Vec<PolicyResult>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PolicyResult {
    pub(super) gpu_hours: f64,
    pub(super) begun_in_time_percent: f64,
    wait: Option<Waits>,
    starts: u64,
}

#[derive(Debug, Deserialize)]
struct Waits {
    mean_seconds: f64,
    p95_seconds: f64,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    tasks: f64,
    gpu_hours: f64,
    in_time_percent: f64,
    mean_wait_seconds: f64,
    /// None if it is not known.
    p95_wait_seconds: Option<f64>,
    starts: u64,
}

/// Simulations with one start-up time.
struct Simulator<'b, 'p> {
    bench: &'b Bench<'p>,
    whole: &'b Path,
    first_day: &'b Path,
    start_up: u32,
    deadline: u32,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let trace = Trace::load(bench)?;
    let (whole, first_day) = (bench.file("trace.csv"), bench.file("first-day.csv"));
    let on_first_day = trace.tasks.partition_point(|task| task.arrival < DAY_SECONDS);
    trace::write(&trace.tasks, &whole)?;
    trace::write(&trace.tasks[..on_first_day], &first_day)?;
    let (mut rows, mut waits) = (Vec::new(), Vec::new());
    for (start_up, deadline) in START_UPS {
        println!("start-up {start_up} s");
        let simulator = Simulator {
            bench,
            whole: &whole,
            first_day: &first_day,
            start_up,
            deadline,
        };
        let figures = simulator.figures()?;
        waits.push(mean_waits(start_up, &figures));
        let rows_of_start_up = figures.iter();
        rows.extend(rows_of_start_up.map(|(name, figures)| figures.row(&format!("{start_up} s: {name}"))));
    }
    Ok(Section {
        title: "Scaling policies",
        text: format!(
            "Trace: {}. A simulated pool (`separation-operator simulate`): {PARTITIONS} partitions, at most {MAX_REPLICAS} \
             workers, a lag check every 2 s, start-ups of 10, 60 and 180 s, of which {REBALANCE} s are a rebalance. A task \
             is in time if it begins within 60 s, or the start-up time if that is longer, and one lag check. *Placed*: \
             messages go to the partition that our API chooses; *hashed*: to that of their key, as from other producers. \
             KEDA is a model of KEDA 2.20 and its HorizontalPodAutoscaler with their defaults, after their source. The \
             optimum knows all arrivals and lets no task wait; a policy that lets tasks wait may need less. *Learned*: \
             the times of tasks and start-ups are learned from nothing, and the first day is not counted. Target with the \
             recorded trace, placed: 98 % in time with at most 560 GPU-hours for 60 s and 450 for 180 s; learned times \
             within 5 % of that.\n\n\
             StartDeadline needs fewer GPU-hours because it lets tasks wait until shortly before the deadline. It loses \
             where a short wait matters more than GPU-hours. {}{}",
            trace.origin,
            waits.join(" "),
            charts(bench)?
        ),
        header: vec![
            "start-up: policy",
            "GPU-hours",
            "in time (%)",
            "mean wait (s)",
            "p95 wait (s)",
            "starts",
        ],
        rows,
    })
}

impl Simulator<'_, '_> {
    /// The rows of the table, by name.
    fn figures(&self) -> Result<[(&'static str, Figures); 8]> {
        let [keda_hashed, hashed] = self.compare(
            self.whole,
            &["--placement", "hashed", "--policies", "keda,start-deadline"],
        )?;
        let placed = ["--placement", "placed", "--policies"];
        let plots = charts_directory(self.bench).display().to_string();
        let mut four = [&placed[..], &["keda,tasks-per-replica,start-deadline,optimum"]].concat();
        if self.start_up == CHARTED {
            four.extend(["--plots", &plots]);
        }
        let [keda, tasks_per_replica, start_deadline, optimum] = self.compare(self.whole, &four)?;
        let known = [&placed[..], &["start-deadline"]].concat();
        let [known_first_day] = self.compare(self.first_day, &known)?;
        let learned = [&known[..], &["--learn"]].concat();
        let [learned_whole] = self.compare(self.whole, &learned)?;
        let [learned_first_day] = self.compare(self.first_day, &learned)?;
        let known_rest = start_deadline.without(&known_first_day);
        let learned_rest = learned_whole.without(&learned_first_day);
        Ok([
            ("KEDA-like, hashed", keda_hashed),
            ("KEDA-like, placed", keda),
            ("TasksPerReplica 1, placed", tasks_per_replica),
            ("StartDeadline, hashed", hashed),
            ("StartDeadline, placed", start_deadline),
            ("StartDeadline, placed, without day 1", known_rest),
            ("StartDeadline, placed, learned, without day 1", learned_rest),
            ("optimum, no waits", optimum),
        ])
    }

    /// The results of this many policies, which `arguments` name.
    fn compare<const N: usize>(&self, trace: &Path, arguments: &[&str]) -> Result<[Figures; N]> {
        let [start_up, rebalance, deadline] =
            [self.start_up - REBALANCE, REBALANCE, self.deadline].map(|seconds| seconds.to_string());
        let trace = trace.display().to_string();
        let scenario = [
            ["--partitions", PARTITIONS],
            ["--max", MAX_REPLICAS],
            ["--start-up", &start_up],
            ["--rebalance", &rebalance],
            ["--start-deadline", &deadline],
            ["--trace", &trace],
        ];
        let found = compare(self.bench, &[scenario.as_flattened(), arguments].concat())?;
        let figures = found.policies.iter();
        let figures: Vec<Figures> = figures.map(|result| Figures::new(found.tasks, result)).collect();
        figures
            .try_into()
            .map_err(|found: Vec<_>| anyhow!("simulate printed {} policies, not {N}", found.len()))
    }
}

/// The policies that `arguments` of `simulate` name.
pub(super) fn compare(bench: &Bench<'_>, arguments: &[&str]) -> Result<Comparison> {
    let printed = process::read(
        bench
            .project
            .command(&bench.binaries()?.operator)
            .args(["simulate", "--json"])
            .args(arguments),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot parse `{printed}`"))
}

impl Figures {
    fn new(tasks: f64, result: &PolicyResult) -> Self {
        let wait = result.wait.as_ref();
        Self {
            tasks,
            gpu_hours: result.gpu_hours,
            in_time_percent: result.begun_in_time_percent,
            mean_wait_seconds: wait.map_or(0.0, |wait| wait.mean_seconds),
            p95_wait_seconds: wait.map(|wait| wait.p95_seconds),
            starts: result.starts,
        }
    }

    /// The figures of the rest of the trace. `part` is a simulation of its beginning, after which no task is queued.
    fn without(&self, part: &Self) -> Self {
        let tasks = self.tasks - part.tasks;
        let mean = |value: fn(&Self) -> f64| {
            (value(self) * self.tasks - value(part) * part.tasks) / tasks.max(f64::MIN_POSITIVE)
        };
        Self {
            tasks,
            gpu_hours: self.gpu_hours - part.gpu_hours,
            in_time_percent: mean(|figures| figures.in_time_percent),
            mean_wait_seconds: mean(|figures| figures.mean_wait_seconds),
            p95_wait_seconds: None,
            starts: self.starts.saturating_sub(part.starts),
        }
    }

    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            format!("{:.0}", self.gpu_hours),
            format!("{:.2}", self.in_time_percent),
            format!("{:.1}", self.mean_wait_seconds),
            self.p95_wait_seconds
                .map_or_else(String::new, |wait| format!("{wait:.1}")),
            self.starts.to_string(),
        ]
    }
}

/// A sentence that compares the mean waits of the policies.
fn mean_waits(start_up: u32, figures: &[(&str, Figures)]) -> String {
    let compared = figures.iter().filter(|(name, _)| name.ends_with(", placed"));
    let waits: Vec<String> = compared
        .map(|(name, figures)| format!("{name}: {:.1} s", figures.mean_wait_seconds))
        .collect();
    format!(
        "Mean waits with a start-up of {start_up} s: {}.",
        waits.join("; ")
    )
}

fn charts_directory(bench: &Bench<'_>) -> PathBuf {
    bench.file("charts")
}

/// Copies the charts to the document's images, and returns Markdown that shows them; nothing if no document is written.
fn charts(bench: &Bench<'_>) -> Result<String> {
    let Some(images) = &bench.images else {
        return Ok(String::new());
    };
    let mut markdown = String::from("\n");
    for (chart, title) in CHARTS {
        let file = format!("policy-{chart}");
        let to = images.join(&file);
        fs::copy(charts_directory(bench).join(chart), &to)
            .with_context(|| format!("cannot write {}", to.display()))?;
        markdown += &format!("\n![{title}, start-up {CHARTED} s, placed](images/{file})");
    }
    Ok(markdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_trace_has_the_difference_of_the_sums() {
        let figures = |tasks, gpu_hours, in_time_percent, mean_wait_seconds, starts| Figures {
            tasks,
            gpu_hours,
            in_time_percent,
            mean_wait_seconds,
            p95_wait_seconds: Some(40.0),
            starts,
        };
        let whole = figures(100.0, 10.0, 95.0, 6.0, 30);
        let rest = whole.without(&figures(20.0, 3.0, 75.0, 10.0, 9));
        // In time: 95 of 100 without 15 of 20.
        let expected = Figures {
            p95_wait_seconds: None,
            ..figures(80.0, 7.0, 100.0, 5.0, 21)
        };
        assert_eq!(rest, expected);
    }

    #[test]
    fn the_output_of_simulate_becomes_a_row() {
        let printed = r#"{"tasks": 2, "deadline_seconds": 60.0, "policies": [{"policy": "StartDeadline 60 s", "gpu_hours": 559.6,
            "begun_in_time_percent": 98.08, "starts": 3, "gpu_seconds_lost": 0.0,
            "wait": {"mean_seconds": 9.04, "p50_seconds": 1.0, "p95_seconds": 44.0, "p99_seconds": 60.0, "max_seconds": 80.0}}]}"#;
        let found: Comparison = serde_json::from_str(printed).unwrap();
        let row = Figures::new(found.tasks, &found.policies[0]).row("60 s: StartDeadline");
        assert_eq!(row, ["60 s: StartDeadline", "560", "98.08", "9.0", "44.0", "3"]);
    }
}
