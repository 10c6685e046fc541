//! Tests run with longer durations or more repetitions than usual. A failing test ends the benchmark.

use anyhow::{Result, ensure};

use super::context::Bench;
use super::figures::Section;
use crate::{process, test};

/// Duration of each dependency's refusal, in seconds.
const REFUSAL_SECONDS: &str = "600";

/// Number of stalled rolling updates.
const ROLLOUTS: &str = "20";

/// Number of consumers of another protocol that join a pool's group.
const FOREIGN_CONSUMERS: &str = "50";

/// Number of rotations of each kind of credentials.
const ROTATIONS: &str = "100";

/// Length of the songs that are compared with an oracle, in seconds.
const ORACLE_SONG_SECONDS: &str = "600";

/// Printed by a test before a refusal's name and result.
const RESUMED: &str = "resumed after ";

/// Printed by a test before a tensor contract and a difference.
const DIFFERENCE: &str = "largest difference with ";

pub(super) fn refusals(bench: &Bench<'_>) -> Result<Section> {
    let printed = run(
        bench,
        "pipeline",
        "during_100_tasks",
        ("SEPARATION_TEST_REFUSAL_SECONDS", REFUSAL_SECONDS),
    )?;
    let figures = printed.lines().filter_map(|line| line.strip_prefix(RESUMED));
    let rows: Vec<Vec<String>> = figures
        .filter_map(|figure| figure.strip_suffix(" s")?.rsplit_once(": "))
        .map(|(refusal, seconds)| vec![refusal.to_owned(), seconds.to_owned()])
        .collect();
    ensure!(!rows.is_empty(), "the tests printed no results");
    Ok(Section {
        title: "Refusals in the middle of 100 tasks",
        text: format!(
            "Seconds from the end of the refusal to the first completed task, after {REFUSAL_SECONDS} s in which a dependency refused \
             the workers' requests. Target: at most 30, no failed result and no lost task; otherwise the run fails."
        ),
        header: vec!["refusal", "s"],
        rows,
    })
}

pub(super) fn oracles(bench: &Bench<'_>) -> Result<Section> {
    let printed = run(
        bench,
        "it",
        "a_long_song_agrees_in_every_contract",
        ("SEPARATION_TEST_SONG_SECONDS", ORACLE_SONG_SECONDS),
    )?;
    let figures = printed.lines().filter_map(|line| line.split_once(DIFFERENCE));
    let rows: Vec<Vec<String>> = figures
        .filter_map(|(_, figure)| figure.rsplit_once(": "))
        .map(|(contract, difference)| vec![contract.to_owned(), difference.to_owned()])
        .collect();
    ensure!(!rows.is_empty(), "the tests printed no results");
    Ok(Section {
        title: "Agreement with an oracle",
        text: format!(
            "Largest difference of any stem, in full scale, between a song of {ORACLE_SONG_SECONDS} s that is separated with a toy \
             model of each tensor contract, and the definition in double precision on complete arrays. Target: at most 1e-4; \
             otherwise the run fails."
        ),
        header: vec!["contract", "difference"],
        rows,
    })
}

pub(super) fn rollouts(bench: &Bench<'_>) -> Result<Section> {
    run(
        bench,
        "cluster",
        "rollouts::",
        ("SEPARATION_TEST_ROLLOUTS", ROLLOUTS),
    )?;
    Ok(Section {
        title: "Rolling updates to an image that cannot start",
        text: "Updates of eight workers with tasks while the backlog shrinks, on a real API server and controller manager. The run \
               fails if a pod with a task is deleted."
            .to_owned(),
        header: vec!["", "count"],
        rows: vec![vec!["updates in which no busy pod was deleted".to_owned(), ROLLOUTS.to_owned()]],
    })
}

pub(super) fn foreign_consumers(bench: &Bench<'_>) -> Result<Section> {
    run(
        bench,
        "cluster",
        "a_consumer_of_the_kip_848_protocol",
        ("SEPARATION_TEST_FOREIGN_CONSUMERS", FOREIGN_CONSUMERS),
    )?;
    Ok(Section {
        title: "Consumers of the KIP-848 protocol in a pool's group",
        text: "Another client joins the group of three to five workers with the consumer protocol, while some have tasks and the others \
               are about to be removed, on a real Kafka and API server. The run fails if the conflict is not reported within 5 \
               readings once the broker lists the client, or a pod with a task is removed."
            .to_owned(),
        header: vec!["", "count"],
        rows: vec![vec![
            "joins that were reported, with every busy pod kept".to_owned(),
            FOREIGN_CONSUMERS.to_owned(),
        ]],
    })
}

pub(super) fn rotations(bench: &Bench<'_>) -> Result<Section> {
    for program in ["cluster", "pipeline"] {
        run(
            bench,
            program,
            "rotations::",
            ("SEPARATION_TEST_ROTATIONS", ROTATIONS),
        )?;
    }
    Ok(Section {
        title: "Rotations of credentials",
        text: "SCRAM passwords, client certificates, client secrets and the signing keys of tokens are rotated while messages arrive, \
               on a real Kafka and API server. The run fails if the operator stops reading the lag, the pods of a rotated Secret are not \
               replaced, a worker does not complete a task after each rotation, or a secret is in a log."
            .to_owned(),
        header: vec!["", "count"],
        rows: vec![vec!["rotations of each kind".to_owned(), ROTATIONS.to_owned()]],
    })
}

/// Runs tests of one test program and returns their output.
fn run(bench: &Bench<'_>, program: &str, filter: &str, variable: (&str, &str)) -> Result<String> {
    let project = bench.project;
    test::install(project)?;
    let mut tests = project.cargo("test");
    tests
        .args(["--workspace", "--all-features", "--locked", "--test", program])
        .args(["--", filter, "--nocapture"])
        .env(variable.0, variable.1);
    println!("{}", process::line(&tests));
    let output = process::observe(&mut tests)?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let outcome = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the tests failed:\n{printed}\n{outcome}");
    // One line for each package with such a test program.
    let mut passed = outcome
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "));
    ensure!(
        passed.any(|rest| !rest.starts_with("0 ")),
        "no test has {filter} in its name"
    );
    Ok(printed + &outcome)
}
