//! Operator benchmarks: from messages to replicas, a thousand pools, a killed leader, unreachable brokers.
//!
//! The measurements are made by the benchmark of the operator package, with a real API server, real brokers
//! and the release build.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::context::Bench;
use super::figures::{Section, Spread};
use crate::{components, process};

#[derive(Debug, Deserialize)]
struct Reaction {
    poll_seconds: f64,
    milliseconds: Vec<f64>,
    numbers_written: Vec<Vec<i32>>,
}

#[derive(Debug, Deserialize)]
struct Thousand {
    pools: usize,
    deployed_seconds: f64,
    observed_seconds: f64,
    idle_seconds: f64,
    idle_cpu_share: f64,
    idle_writes: BTreeMap<String, usize>,
    resident_bytes: u64,
    kafka_sockets: usize,
    published_seconds: f64,
    busy_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Takeover {
    seconds: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct BrokerFaults {
    away_seconds: f64,
    least_replicas: i32,
    reacted_seconds: f64,
    healthy_milliseconds: Vec<f64>,
}

/// Decisions per synthetic situation: the first one, one with more work, and one on the result of the first.
const DECISIONS_PER_CASE: usize = 3;

const CASES: usize = 3_400_000;

/// Compiles the operator as optimized as a release: tests use opt-level 0, which is not what users run.
const OPTIMIZED: &str = "profile.dev.package.separation-controller.opt-level=3";

#[derive(Debug, Deserialize)]
struct Decide {
    partitions: i32,
    pods: i32,
    scaling_up_us: f64,
    with_members_us: f64,
    start_deadline_us: f64,
}

pub(super) fn decisions(bench: &Bench<'_>) -> Result<Section> {
    let project = bench.project;
    let package = [
        "--locked",
        "--quiet",
        "--package=separation-controller",
        "--config",
        OPTIMIZED,
    ];
    let printed = process::read(
        project
            .cargo("bench")
            .args(package)
            .args(["--profile=dev", "--bench=decide"]),
    )?;
    let found: Decide =
        serde_json::from_str(&printed).with_context(|| format!("cannot parse `{printed}`"))?;
    process::run(
        project
            .cargo("test")
            .args(package)
            .args(["--lib", "decide::properties"])
            .env("PROPTEST_CASES", CASES.to_string()),
    )?;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    Ok(Section {
        title: "Operator: decisions",
        text: format!(
            "One decision about {} partitions, median of nine rounds; target: 5 µs, except for StartDeadline. And synthetic situations in which every property of a decision was checked.",
            found.partitions
        ),
        header: vec!["", "figure"],
        rows: vec![
            row("no workers yet (µs)", format!("{:.2}", found.scaling_up_us)),
            row(
                &format!("{} pods and their members (µs)", found.pods),
                format!("{:.2}", found.with_members_us),
            ),
            row(
                &format!(
                    "{} pods, their members and queues, StartDeadline (µs)",
                    found.pods
                ),
                format!("{:.2}", found.start_deadline_us),
            ),
            row(
                "decisions that satisfied every property",
                (CASES * DECISIONS_PER_CASE).to_string(),
            ),
        ],
    })
}

/// A hundred scale-downs, each with busy and idle pods and tasks that arrive between selection and removal.
pub(super) fn scale_down(bench: &Bench<'_>) -> Result<Section> {
    let project = bench.project;
    components::install(project)?;
    process::run(
        project
            .cargo("test")
            .args([
                "--locked",
                "--package=separation-operator",
                "--test=cluster",
                "--",
            ])
            .args(["--ignored", "hundred"]),
    )?;
    Ok(Section {
        title: "Operator: scale-down of idle pods",
        text: "Scale-downs with some pods busy, on a real API server with its controllers and with real members: only pods that were \
               idle in both last readings may be deleted, even if a pod gets a task between its selection and the scale-down."
            .to_owned(),
        header: vec!["", "figure"],
        rows: vec![vec!["scale-downs that deleted only idle pods".to_owned(), "100 of 100".to_owned()]],
    })
}

pub(super) fn reaction(bench: &Bench<'_>) -> Result<Section> {
    let default: Reaction = measure(bench, &["reaction"])?;
    let fast: Reaction = measure(bench, &["reaction", "--poll-seconds", "1"])?;
    let rows = [default, fast].into_iter().map(|found| -> Result<Vec<String>> {
        let [min, median, max] = Spread::from_figures(found.milliseconds)
            .context("there were no runs")?
            .cells(0);
        let max_writes = found.numbers_written.iter().map(Vec::len).max().unwrap_or(0);
        let poll = format!("{} s", found.poll_seconds);
        Ok(vec![poll, min, median, max, max_writes.to_string()])
    });
    Ok(Section {
        title: "Operator: from messages to replicas",
        text: "Milliseconds from 24 messages, one on each of 24 partitions, at zero replicas to \
               `Deployment.spec.replicas` = 24, by the interval of lag readings. Target: one write, a median of 1,500 and at \
               most 2,500 ms with the default of 2 s, and a median of 1,000 ms with 1 s. KEDA took 55 to 86 s with its \
               defaults and 7 to 15 s with its fastest, on two cores."
            .to_owned(),
        header: vec!["interval of lag readings", "min", "median", "max", "writes at most"],
        rows: rows.collect::<Result<_>>()?,
    })
}

pub(super) fn thousand_pools(bench: &Bench<'_>) -> Result<Section> {
    let found: Thousand = measure(bench, &["thousand"])?;
    let row = |what: &str, figure: String, promised: &str| vec![what.to_owned(), figure, promised.to_owned()];
    let writes: usize = found.idle_writes.values().sum();
    Ok(Section {
        title: "Operator: a thousand pools",
        text: format!(
            "{} pools of 4 partitions on one broker, 2,000 Deployments, the default poll of 2 s, everything on this machine. \
             KEDA with as many objects: 1.5 GB, about 2,000 sockets, two objects a second.",
            found.pools
        ),
        header: vec!["", "figure", "promised"],
        rows: vec![
            row(
                "applied to all Deployments written (s)",
                format!("{:.1}", found.deployed_seconds),
                "60",
            ),
            row(
                "applied to all offsets initialized and status written (s)",
                format!("{:.1}", found.observed_seconds),
                "60",
            ),
            row(
                "idle: resident (MB)",
                format!("{:.0}", found.resident_bytes as f64 / 1e6),
                "80",
            ),
            row(
                "idle: share of one core (%)",
                format!("{:.1}", 100.0 * found.idle_cpu_share),
                "5",
            ),
            row(
                "idle: writes, without the Lease",
                format!("{writes} in {:.0} s", found.idle_seconds),
                "0",
            ),
            row("idle: connections to Kafka", found.kafka_sockets.to_string(), "4"),
            row(
                "one message on every partition of every pool, first to last (s)",
                format!("{:.1}", found.published_seconds),
                "",
            ),
            row(
                "from the first of these to all replicas written (s)",
                format!("{:.1}", found.busy_seconds),
                "10",
            ),
        ],
    })
}

pub(super) fn takeover(bench: &Bench<'_>) -> Result<Section> {
    let found: Takeover = measure(bench, &["takeover"])?;
    let [min, median, max] = Spread::from_figures(found.seconds)
        .context("there were no runs")?
        .cells(1);
    Ok(Section {
        title: "Operator: a killed leader",
        text: "Seconds from `kill -9` of the leader to its standby's first write of replicas, default lease times. Target: \
               at most 20 s."
            .to_owned(),
        header: vec!["", "min", "median", "max"],
        rows: vec![vec!["takeover (s)".to_owned(), min, median, max]],
    })
}

pub(super) fn brokers_unreachable(bench: &Bench<'_>) -> Result<Section> {
    let found: BrokerFaults = measure(bench, &["faults"])?;
    let [min, median, max] = Spread::from_figures(found.healthy_milliseconds)
        .context("there were no runs")?
        .cells(0);
    Ok(Section {
        title: "Operator: unreachable brokers",
        text: format!(
            "A pool with 5 replicas whose broker is stopped for {:.0} s, and one on another broker that gets messages \
             meanwhile. Target: replicas are never lowered, a reaction within two readings (4 s) of the broker's return, \
             and at most 2,500 ms on the other one.",
            found.away_seconds
        ),
        header: vec!["", "figure"],
        rows: vec![
            vec!["lowest replicas".to_owned(), found.least_replicas.to_string()],
            vec![
                "the broker's return to new replicas (s)".to_owned(),
                format!("{:.1}", found.reacted_seconds),
            ],
            vec![
                "message to replicas on the other broker (ms): min, median, max".to_owned(),
                format!("{min}, {median}, {max}"),
            ],
        ],
    })
}

/// Runs one scenario of the operator benchmark and parses its output.
fn measure<T: for<'d> Deserialize<'d>>(bench: &Bench<'_>, scenario: &[&str]) -> Result<T> {
    let project = bench.project;
    components::install(project)?;
    process::run(project.dist_build().arg("--package=separation-operator"))?;
    let printed = process::read(
        project
            .cargo("bench")
            // The benchmark only waits: the measured code is the release build.
            .args([
                "--locked",
                "--quiet",
                "--profile=dev",
                "--package=separation-controller",
                "--bench=pools",
            ])
            .arg("--")
            .arg("--operator")
            .arg(project.target("dist/separation-operator"))
            .args(scenario),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot parse `{printed}`"))
}
