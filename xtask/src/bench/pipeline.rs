//! The Kafka roles: what random kills lose, time per message, memory while idle, how long a killed worker's task stalls.
//!
//! `pipeline-bench` of the testbed measures, with real brokers and the release build of the worker.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Bench;
use super::figures::{Section, Spread};
use crate::{parts, process};

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

pub(super) fn kills(bench: &Bench<'_>) -> Result<Section> {
    let found: Kills = measure(bench, &["kills"])?;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    Ok(Section {
        title: "Random kills",
        text: format!(
            "{} tiny tasks on 12 partitions, 4 processors and 2 uploaders, one of them killed (`kill -9`, every other time \
             up to 100 ms after SIGTERM) and replaced at random, about once a second, with a session of 6 s. Promised are \
             0 lost, no dead letter, no finished work done again, and one webhook id for each task.",
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
                "tasks told with several webhook ids",
                found.tasks_with_several_webhook_ids.to_string(),
            ),
            row("webhooks in all", found.webhooks.to_string()),
            row("seconds in all", format!("{:.0}", found.seconds)),
        ],
    })
}

pub(super) fn messages(bench: &Bench<'_>) -> Result<Section> {
    let found: Messages = measure(bench, &["messages"])?;
    let row = |who: &str, figures: Vec<f64>| -> Result<Vec<String>> {
        let [min, median, max] = Spread::of(figures).context("nothing was run")?.cells(0);
        Ok(vec![who.to_owned(), min, median, max])
    };
    Ok(Section {
        title: "Time per message",
        text: format!(
            "Milliseconds from one result to the next: {} songs of a tenth of a second, a model that takes no time, one \
             partition of one local broker. Ours decodes, separates, syncs both stems and a manifest to disk, notes the \
             attempt, publishes and commits; the existing system's loop in Python copies the song without syncing. \
             Promised are at most 15 ms.",
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
    let found: Memory = measure(bench, &["memory"])?;
    let megabytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    Ok(Section {
        title: "Memory of an idle processor",
        text: format!(
            "Resident MB (10^6 bytes) with the built-in model, before and after {} songs of 20 s. Promised are at most 100.",
            found.tasks
        ),
        header: vec!["", "MB"],
        rows: vec![
            vec!["before".to_owned(), megabytes(found.before_bytes)],
            vec!["after".to_owned(), megabytes(found.after_bytes)],
        ],
    })
}

pub(super) fn stall(bench: &Bench<'_>) -> Result<Section> {
    let found: Stall = measure(bench, &["stall"])?;
    let rounds = found.seconds.len();
    let [min, median, max] = Spread::of(found.seconds).context("nothing was run")?.cells(1);
    Ok(Section {
        title: "A killed worker's task",
        text: format!(
            "Seconds from `kill -9` of a worker in the middle of a task to the moment another worker begins it, with a \
             session of {:.0} s, {rounds} rounds. Promised are at most the session and 5 s.",
            found.session_timeout_seconds
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![vec!["stall (s)".to_owned(), min, median, max]],
    })
}

/// Runs one scenario of `pipeline-bench` and reads its figures.
fn measure<T: for<'d> Deserialize<'d>>(bench: &Bench<'_>, scenario: &[&str]) -> Result<T> {
    let project = bench.project;
    parts::install(project)?;
    process::run(project.cargo("build").args([
        "--locked",
        "--package=separation-testbed",
        "--bin=pipeline-bench",
    ]))?;
    let printed = process::read(
        project
            .command(project.target("debug/pipeline-bench"))
            .arg("--worker")
            .arg(project.target("release/separation-worker"))
            .arg("--models")
            .arg(project.path("worker/tests/models"))
            .args(scenario),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot understand `{printed}`"))
}
