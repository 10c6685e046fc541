//! Peak memory by length of the song.

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};

/// Songs by name, seconds and runs: the hour is separated once, because it takes minutes and memory hardly
/// varies.
const SONGS: [(&str, u32, u32); 2] = [("5 minutes", 300, 3), ("60 minutes", 3600, 1)];

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let settings = ["--model", "builtin", "--threads", &bench.threads];
    let mut rows = Vec::new();
    for (name, seconds, runs) in SONGS {
        let song = bench.song(seconds)?;
        let peaks = (0..runs)
            .map(|_| {
                let separation = bench.binaries.separate_one(&song, &bench.stems(), &settings)?;
                Ok(separation.peak_memory_bytes as f64 / 1e6)
            })
            .collect::<Result<Vec<f64>>>()?;
        let [min, median, max] = Spread::from_figures(peaks)
            .context("there were no runs")?
            .cells(0);
        rows.push(vec![name.to_owned(), runs.to_string(), min, median, max]);
    }
    Ok(Section {
        title: "Memory",
        text: format!(
            "Peak resident memory of the process in MB (10^6 bytes), ONNX Runtime and the built-in model included, \
             `--threads {}`; less is better. Target: at most 250 MB for 5 minutes, and within 10 % of that for 60 minutes.",
            bench.threads
        ),
        header: vec!["song", "runs", "min", "median", "max"],
        rows,
    })
}
