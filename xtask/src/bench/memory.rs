//! Peak memory by model and length of the song.

use anyhow::Result;

use super::context::{Bench, MODELS};
use super::figures::{Section, Spread};

/// Songs by name, seconds and runs: the hour is separated once, because it takes minutes and memory hardly
/// varies.
const SONGS: [(&str, u32, u32); 2] = [("5 minutes", 300, 3), ("60 minutes", 3600, 1)];

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Vec::new();
    for model in MODELS {
        let settings = ["--model", model, "--threads", &bench.threads];
        for (name, seconds, runs) in SONGS {
            let song = bench.song(seconds)?;
            let run = |_| -> Result<f64> {
                let separation = bench.binaries()?.separate_one(&song, &bench.stems(), &settings)?;
                Ok(separation.peak_memory_bytes as f64 / 1e6)
            };
            let peaks = (0..runs).map(run).collect::<Result<Vec<f64>>>()?;
            rows.push(Spread::row(format!("{model}, {name}"), peaks, 0)?);
        }
    }
    Ok(Section {
        title: "Memory",
        text: format!(
            "Peak resident memory of the process in MB (10^6 bytes), ONNX Runtime and the model included, \
             `--threads {}`, three runs (60 minutes: one); less is better. Target for 5 minutes: at most 250 MB with the \
             built-in model, and 450 MB with the default one; for 60 minutes within 10 % of that.",
            bench.threads
        ),
        header: vec!["model, song", "min", "median", "max"],
        rows,
    })
}
