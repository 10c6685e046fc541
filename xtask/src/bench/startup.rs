//! Time from the start of the process to the first finished chunk.

use anyhow::{Context, Result};

use super::context::{Bench, MODELS};
use super::figures::{Section, Spread};

const RUNS: u32 = 5;
const SONG_SECONDS: u32 = 180;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let song = bench.song(SONG_SECONDS)?;
    let rows = MODELS.into_iter().map(|model| {
        let settings = ["--model", model, "--threads", &bench.threads];
        let run = |_| -> Result<f64> {
            let separation = bench.binaries()?.separate_one(&song, &bench.stems(), &settings)?;
            separation
                .first_chunk_seconds
                .context("the worker did not report first_chunk_seconds")
        };
        let waits = (0..RUNS).map(run).collect::<Result<Vec<f64>>>()?;
        Spread::row(model, waits, 2)
    });
    Ok(Section {
        title: "Start-up",
        text: format!(
            "Seconds from the start of the process to the first finished chunk: loading ONNX Runtime and the model, \
             decoding, one run. `--threads {}`, {RUNS} runs; less is better. Target: at most 0.5 s with the built-in model, \
             and 1.0 s with the default one.",
            bench.threads
        ),
        header: vec!["model", "min", "median", "max"],
        rows: rows.collect::<Result<_>>()?,
    })
}
