//! Tests that run for longer, or more often, than in each run of the tests. A test that fails ends the benchmark.

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::figures::Section;
use crate::{process, test};

/// How long each dependency refuses.
const REFUSAL_SECONDS: &str = "600";

/// How many rolling updates are stalled.
const ROLLOUTS: &str = "20";

/// What a test prints before a refusal's name and figure.
const RESUMED: &str = "resumed after ";

pub(super) fn refusals(bench: &Bench<'_>) -> Result<Section> {
    let printed = run(
        bench,
        "pipeline",
        "in_the_middle_of_100_tasks",
        ("SEPARATION_TEST_REFUSAL_SECONDS", REFUSAL_SECONDS),
    )?;
    let figures = printed.lines().filter_map(|line| line.strip_prefix(RESUMED));
    let rows: Vec<Vec<String>> = figures
        .filter_map(|figure| figure.strip_suffix(" s")?.rsplit_once(": "))
        .map(|(refusal, seconds)| vec![refusal.to_owned(), seconds.to_owned()])
        .collect();
    ensure!(!rows.is_empty(), "the tests printed no figure");
    Ok(Section {
        title: "Refusals in the middle of 100 tasks",
        text: format!(
            "Seconds from the repair to the first task that is done, after {REFUSAL_SECONDS} s in which a dependency refused \
             the workers. Promised are at most 30, no failed result and no lost task: the run fails otherwise."
        ),
        header: vec!["refusal", "s"],
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
        text: "Updates of eight workers with tasks while the need falls, on a real API server and controller manager. The run \
               fails if a pod with a task is deleted."
            .to_owned(),
        header: vec!["", "count"],
        rows: vec![vec!["updates in which no busy pod was deleted".to_owned(), ROLLOUTS.to_owned()]],
    })
}

/// Runs tests of one test program and gives what they printed.
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
    let passed = outcome
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "));
    let passed = passed
        .and_then(|rest| rest.split(' ').next())
        .context("no test ran")?;
    ensure!(passed != "0", "no test has {filter} in its name");
    Ok(printed)
}
