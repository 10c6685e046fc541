//! Time until a user has the demo's stems.

use std::time::Duration;

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};
use crate::demo;

const RUNS: usize = 3;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let binaries = bench.binaries()?;
    let runs = (0..RUNS).map(|_| demo::timed(bench.project, binaries));
    let runs = runs.collect::<Result<Vec<Duration>>>()?;
    let seconds = runs.iter().map(Duration::as_secs_f64).collect();
    let [min, median, max] = Spread::from_figures(seconds)
        .context("there were no runs")?
        .cells(1);
    Ok(Section {
        title: "Demo",
        text: format!(
            "Seconds of the demo after its build, {RUNS} runs: from the start of a pool on this machine, without workers, to its \
             end, with a song's stems written and its webhook delivered. Target: at most 20 s."
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![vec!["demo (s)".to_owned(), min, median, max]],
    })
}
