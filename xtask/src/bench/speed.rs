//! Speed of the built-in model, relative to real time, on a song of ordinary length.

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};

const RUNS: u32 = 5;
const SONG_SECONDS: u32 = 180;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let song = bench.song(SONG_SECONDS)?;
    let settings = ["--model", "builtin", "--threads", &bench.threads];
    let speeds = (0..RUNS)
        .map(|_| {
            Ok(bench
                .binaries
                .separate_one(&song, &bench.stems(), &settings)?
                .speed)
        })
        .collect::<Result<Vec<f64>>>()?;
    let spread = Spread::from_figures(speeds).context("there were no runs")?;
    let [min, median, max] = spread.cells(1);
    Ok(Section {
        title: "Speed",
        text: format!(
            "The built-in model on a song of {SONG_SECONDS} s, `--threads {}`, {RUNS} runs; decoding and writing the \
             stems included. Times real time; more is better. Target: at least 40.",
            bench.threads
        ),
        header: vec!["song", "min", "median", "max"],
        rows: vec![vec!["3 minutes".to_owned(), min, median, max]],
    })
}
