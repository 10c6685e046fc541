//! Speed relative to real time, on a song of ordinary length.

use anyhow::Result;

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
            Ok(separation.speed)
        };
        let speeds = (0..RUNS).map(run).collect::<Result<Vec<f64>>>()?;
        Spread::row(model, speeds, 1)
    });
    Ok(Section {
        title: "Speed",
        text: format!(
            "A song of {SONG_SECONDS} s, `--threads {}`, {RUNS} runs; decoding and writing the stems included. Times real \
             time; more is better. Target: at least 40 with the built-in model, and 45 with the default one.",
            bench.threads
        ),
        header: vec!["model", "min", "median", "max"],
        rows: rows.collect::<Result<_>>()?,
    })
}
