//! Benchmarks of the Kafka roles and the API: losses after random kills, time per message, idle memory, stall
//! after a killed worker, many uploads.
//!
//! The measurements are made by the testbed's `pipeline-bench`, with real brokers and the release build of
//! the worker.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::context::{Bench, MODELS};
use super::figures::{Section, Spread};
use crate::{components, process};

#[derive(Debug, Deserialize)]
struct Kills {
    tasks: usize,
    kills: usize,
    seconds: f64,
    lost: Vec<String>,
    dead_letters: usize,
    stems_stored_twice: usize,
    uploaded_twice: usize,
    tasks_with_several_webhook_ids: usize,
    webhooks: usize,
}

#[derive(Debug, Deserialize)]
struct Messages {
    tasks: usize,
    worker_ms: Vec<f64>,
    peer_ms: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Memory {
    tasks: usize,
    before_bytes: u64,
    after_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Stall {
    session_timeout_seconds: f64,
    seconds: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Api {
    uploads: usize,
    at_once: usize,
    bytes: u64,
    seconds: f64,
    refused: usize,
    lost: Vec<String>,
    peak_bytes: u64,
    reads: usize,
    read_ms_alone: f64,
    read_ms_meanwhile: f64,
}

pub(super) fn kills(bench: &Bench<'_>) -> Result<Section> {
    let found: Kills = measure(bench, &["kills"])?;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    Ok(Section {
        title: "Random kills",
        text: format!(
            "{} small tasks on 12 partitions, 4 processors and 2 uploaders, one of them killed (`kill -9`, every other time \
             up to 100 ms after SIGTERM) and replaced at random, about once a second, with a session timeout of 6 s. Target: \
             0 lost, no dead letter, no finished task repeated, and one webhook id per task.",
            found.tasks
        ),
        header: vec!["", "figure"],
        rows: vec![
            row("kills", found.kills.to_string()),
            row("tasks lost", found.lost.len().to_string()),
            row("dead letters", found.dead_letters.to_string()),
            row(
                "tasks whose stems were stored twice",
                found.stems_stored_twice.to_string(),
            ),
            row("tasks that were uploaded twice", found.uploaded_twice.to_string()),
            row(
                "tasks with several webhook ids",
                found.tasks_with_several_webhook_ids.to_string(),
            ),
            row("webhooks in total", found.webhooks.to_string()),
            row("seconds in total", format!("{:.0}", found.seconds)),
        ],
    })
}

pub(super) fn messages(bench: &Bench<'_>) -> Result<Section> {
    let found: Messages = measure(bench, &["messages"])?;
    let row = |who: &str, figures: Vec<f64>| -> Result<Vec<String>> {
        let [min, median, max] = Spread::from_figures(figures)
            .context("there were no runs")?
            .cells(0);
        Ok(vec![who.to_owned(), min, median, max])
    };
    Ok(Section {
        title: "Time per message",
        text: format!(
            "Milliseconds from one result to the next: {} songs of a tenth of a second, a model that takes almost no time, one \
             partition of one local broker. Ours decodes, separates, syncs both stems and a manifest to disk, records the \
             attempt, publishes and commits; uvr5-api's loop in Python copies the song without syncing. \
             Target: at most 15 ms.",
            found.tasks
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![
            row("separation-worker processor (ms)", found.worker_ms)?,
            row("the Python loop (ms)", found.peer_ms)?,
        ],
    })
}

pub(super) fn idle_memory(bench: &Bench<'_>) -> Result<Section> {
    let (mut rows, mut tasks) = (Vec::new(), 0);
    for model in MODELS {
        let found: Memory = measure(bench, &["memory", "--model", model])?;
        tasks = found.tasks;
        for (when, bytes) in [("before", found.before_bytes), ("after", found.after_bytes)] {
            rows.push(vec![
                format!("{model}, {when}"),
                format!("{:.0}", bytes as f64 / 1e6),
            ]);
        }
    }
    Ok(Section {
        title: "Memory of an idle processor",
        text: format!(
            "Resident MB (10^6 bytes) before and after {tasks} songs of 20 s. Target: at most 100 with the built-in model, and \
             250 with the default one."
        ),
        header: vec!["model", "MB"],
        rows,
    })
}

pub(super) fn stall(bench: &Bench<'_>) -> Result<Section> {
    let found: Stall = measure(bench, &["stall"])?;
    let rounds = found.seconds.len();
    let [min, median, max] = Spread::from_figures(found.seconds)
        .context("there were no runs")?
        .cells(1);
    Ok(Section {
        title: "A killed worker's task",
        text: format!(
            "Seconds from `kill -9` of a worker in the middle of a task until another worker starts it, with a \
             session timeout of {:.0} s, {rounds} rounds. Target: at most the session timeout plus 5 s.",
            found.session_timeout_seconds
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![vec!["stall (s)".to_owned(), min, median, max]],
    })
}

pub(super) fn api(bench: &Bench<'_>) -> Result<Section> {
    let found: Api = measure(bench, &["api"])?;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    let times = found.read_ms_meanwhile / found.read_ms_alone;
    Ok(Section {
        title: "Uploads to the API",
        text: format!(
            "{} uploads of {:.1} MB (10^6 bytes) to `POST /v1/tasks` by {} clients, to one API process with its default limits, \
             one local broker, and an S3 server for staging and records; clients, servers and API share the machine. A client \
             whose request is refused with 503 repeats it after the time in Retry-After. Meanwhile `GET /v1/tasks/{{id}}` is \
             sent {} times. Target: no lost task, at most 150 MB, and a 99th percentile of GET of at most 4 times that alone.",
            found.uploads,
            found.bytes as f64 / 1e6,
            found.at_once,
            found.reads
        ),
        header: vec!["", "figure"],
        rows: vec![
            row("tasks lost", found.lost.len().to_string()),
            row(
                "peak memory (MB)",
                format!("{:.0}", found.peak_bytes as f64 / 1e6),
            ),
            row(
                "99th percentile of GET alone (ms)",
                format!("{:.1}", found.read_ms_alone),
            ),
            row(
                "99th percentile of GET meanwhile (ms)",
                format!("{:.1}", found.read_ms_meanwhile),
            ),
            row("GET meanwhile / alone", format!("{times:.1}")),
            row("refused and repeated requests", found.refused.to_string()),
            row("seconds in total", format!("{:.0}", found.seconds)),
        ],
    })
}

/// Runs one scenario of `pipeline-bench` and parses its output.
pub(super) fn measure<T: for<'d> Deserialize<'d>>(bench: &Bench<'_>, scenario: &[&str]) -> Result<T> {
    let project = bench.project;
    components::install(project)?;
    let worker = &bench.binaries()?.worker;
    process::run(project.cargo("build").args([
        "--locked",
        "--package=separation-testbed",
        "--bin=pipeline-bench",
    ]))?;
    let printed = process::read(
        project
            .command(project.target("debug/pipeline-bench"))
            .arg("--worker")
            .arg(worker)
            .arg("--models")
            .arg(project.path("worker/tests/models"))
            .args(scenario),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot parse `{printed}`"))
}
