//! Time from the start of the process to the first finished chunk.

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};

const RUNS: u32 = 5;
const SONG_SECONDS: u32 = 180;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let song = bench.song(SONG_SECONDS)?;
    let settings = ["--model", "builtin", "--threads", &bench.threads];
    let waits = (0..RUNS)
        .map(|_| {
            bench
                .binaries
                .separate_one(&song, &bench.stems(), &settings)?
                .first_chunk_seconds
                .context("the worker did not report first_chunk_seconds")
        })
        .collect::<Result<Vec<f64>>>()?;
    let [min, median, max] = Spread::from_figures(waits)
        .context("there were no runs")?
        .cells(2);
    Ok(Section {
        title: "Start-up",
        text: format!(
            "Seconds from the start of the process to the first finished chunk: loading ONNX Runtime and the built-in \
             model, decoding, one run. `--threads {}`, {RUNS} runs; less is better. Target: at most 0.5 s.",
            bench.threads
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![vec!["first chunk (s)".to_owned(), min, median, max]],
    })
}
