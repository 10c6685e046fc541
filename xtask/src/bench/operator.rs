//! The operator: from messages to replicas, a thousand pools, a leader that is killed, brokers that are away.
//!
//! The benchmark of its package measures, with a real API server, real brokers and the release build.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Bench;
use super::figures::{Section, Spread};
use crate::{parts, process};

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
struct Faults {
    away_seconds: f64,
    least_replicas: i32,
    reacted_seconds: f64,
    healthy_milliseconds: Vec<f64>,
}

/// Decisions that each made-up situation takes: on it, on more work, and on what came of the first.
const DECISIONS_PER_CASE: usize = 3;

const CASES: usize = 3_400_000;

/// The operator's own code as fast as a release: at opt-level 0, as tests have it, it would not be what runs.
const OPTIMISED: &str = "profile.dev.package.separation-operator.opt-level=3";

#[derive(Debug, Deserialize)]
struct Decide {
    partitions: i32,
    pods: i32,
    scaling_out_us: f64,
    with_members_us: f64,
}

pub(super) fn decisions(bench: &Bench<'_>) -> Result<Section> {
    let project = bench.project;
    let package = [
        "--locked",
        "--quiet",
        "--package=separation-operator",
        "--config",
        OPTIMISED,
    ];
    let printed = process::read(
        project
            .cargo("bench")
            .args(package)
            .args(["--profile=dev", "--bench=decide"]),
    )?;
    let found: Decide =
        serde_json::from_str(&printed).with_context(|| format!("cannot understand `{printed}`"))?;
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
            "One decision about {} partitions, median of nine rounds; promised are 5 µs. And made-up situations in which every property of a decision was checked.",
            found.partitions
        ),
        header: vec!["", "figure"],
        rows: vec![
            row("no workers yet (µs)", format!("{:.2}", found.scaling_out_us)),
            row(
                &format!("{} pods and their members (µs)", found.pods),
                format!("{:.2}", found.with_members_us),
            ),
            row(
                "decisions that kept every property",
                (CASES * DECISIONS_PER_CASE).to_string(),
            ),
        ],
    })
}

/// A hundred hand-overs, each with busy and idle pods and work that comes between mark and removal.
pub(super) fn hand_overs(bench: &Bench<'_>) -> Result<Section> {
    let project = bench.project;
    parts::install(project)?;
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
        title: "Operator: hand-overs",
        text: "Scale-ins with some pods busy, on a real API server with its controllers and with real members: only pods that were \
               idle in both last readings may go, also where a pod gets work between its mark and the removal."
            .to_owned(),
        header: vec!["", "figure"],
        rows: vec![vec!["hand-overs in which only idle pods went".to_owned(), "100 of 100".to_owned()]],
    })
}

pub(super) fn reaction(bench: &Bench<'_>) -> Result<Section> {
    let default: Reaction = measure(bench, &["reaction"])?;
    let fast: Reaction = measure(bench, &["reaction", "--poll-seconds", "0.25"])?;
    let rows = [default, fast].into_iter().map(|found| -> Result<Vec<String>> {
        let [min, median, max] = Spread::of(found.milliseconds)
            .context("nothing was run")?
            .cells(0);
        let most = found.numbers_written.iter().map(Vec::len).max().unwrap_or(0);
        let poll = format!("{} s", found.poll_seconds);
        Ok(vec![poll, min, median, max, most.to_string()])
    });
    Ok(Section {
        title: "Operator: from messages to replicas",
        text: "Milliseconds from 24 messages, one on each of 24 partitions, at zero replicas to \
               `Deployment.spec.replicas` = 24, by how often lag is read. Promised are one write, a median of 1,500 and at \
               most 2,500 ms with the default of 2 s, and 400 ms with 0.25 s. KEDA took 55 to 86 s with its defaults and 7 to \
               15 s with its fastest, on two cores."
            .to_owned(),
        header: vec!["lag is read every", "min", "median", "max", "writes at most"],
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
                "applied to all offsets initialised and status written (s)",
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
                "idle: writes but the Lease's",
                format!("{writes} in {:.0} s", found.idle_seconds),
                "0",
            ),
            row("idle: connections to Kafka", found.kafka_sockets.to_string(), "4"),
            row(
                "one message on every partition of all, first to last (s)",
                format!("{:.1}", found.published_seconds),
                "",
            ),
            row(
                "the first of these to all replicas written (s)",
                format!("{:.1}", found.busy_seconds),
                "10",
            ),
        ],
    })
}

pub(super) fn takeover(bench: &Bench<'_>) -> Result<Section> {
    let found: Takeover = measure(bench, &["takeover"])?;
    let [min, median, max] = Spread::of(found.seconds).context("nothing was run")?.cells(1);
    Ok(Section {
        title: "Operator: a leader that is killed",
        text: "Seconds from `kill -9` of the leader to its standby's first write of replicas, default lease times. Promised \
               are at most 20 s."
            .to_owned(),
        header: vec!["", "min", "median", "max"],
        rows: vec![vec!["takeover (s)".to_owned(), min, median, max]],
    })
}

pub(super) fn brokers_away(bench: &Bench<'_>) -> Result<Section> {
    let found: Faults = measure(bench, &["faults"])?;
    let [min, median, max] = Spread::of(found.healthy_milliseconds)
        .context("nothing was run")?
        .cells(0);
    Ok(Section {
        title: "Operator: brokers that are away",
        text: format!(
            "A pool with 5 replicas whose broker is stopped for {:.0} s, and one on another broker that gets a message now and \
             then meanwhile. Promised: replicas are never lowered, a reaction within two readings (4 s) of the broker's return, \
             and at most 2,500 ms on the other one.",
            found.away_seconds
        ),
        header: vec!["", "figure"],
        rows: vec![
            vec!["least replicas".to_owned(), found.least_replicas.to_string()],
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

/// Runs one scenario of the operator's benchmark and reads its figures.
fn measure<T: for<'d> Deserialize<'d>>(bench: &Bench<'_>, scenario: &[&str]) -> Result<T> {
    let project = bench.project;
    parts::install(project)?;
    process::run(
        project
            .cargo("build")
            .args(["--locked", "--release", "--package=separation-operator"]),
    )?;
    let printed = process::read(
        project
            .cargo("bench")
            // The benchmark only waits: what is measured is the release build.
            .args([
                "--locked",
                "--quiet",
                "--profile=dev",
                "--package=separation-operator",
                "--bench=pools",
            ])
            .arg("--")
            .arg("--operator")
            .arg(project.target("release/separation-operator"))
            .args(scenario),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot understand `{printed}`"))
}
