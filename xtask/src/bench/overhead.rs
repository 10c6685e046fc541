//! Overhead around the model: a complete separation compared with runs of the model alone.

use std::path::Path;

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};
use crate::generate;

const ROUNDS: u32 = 5;
/// Model runs before and after each separation.
const BARE_RUNS: &str = "3";
const SONG_SECONDS: u32 = 60;
const THREADS: &str = "2";

/// Samples between two spectrogram frames, frames per chunk, and the default overlap of two chunks.
const HOP: u64 = 1024;
const FRAMES_PER_CHUNK: u64 = 256;
const OVERLAP: f64 = 0.25;

/// Measures in rounds, each a complete separation between two measurements of the model alone, so that a
/// machine that becomes slower affects both.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let model = bench.file("topology.onnx");
    generate::topology_model(bench.project, &model)?;
    let chunks = chunk_count(u64::from(SONG_SECONDS) * 44_100, n_fft(&model)?) as f64;
    let song = bench.song(SONG_SECONDS)?;
    let model_text = model.to_str().context("the checkout's path is not UTF-8")?;
    let settings = ["--threads", THREADS, "--model", model_text];
    let (mut bare, mut complete, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare_runs = || bench.binaries.bare_run_seconds(&model, THREADS, BARE_RUNS);
        let mut runs = bare_runs()?;
        let separation = bench.binaries.separate_one(&song, &bench.stems(), &settings)?;
        runs.extend(bare_runs()?);
        let run = Spread::from_figures(runs)
            .context("bench-model ran nothing")?
            .median;
        bare.push(run);
        complete.push(separation.wall_seconds / chunks);
        ratios.push(separation.wall_seconds / (chunks * run));
    }
    let row = |name: &str, figures: Vec<f64>| -> Result<Vec<String>> {
        let cells = Spread::from_figures(figures)
            .context("there were no runs")?
            .cells(3);
        Ok([vec![name.to_owned()], cells.to_vec()].concat())
    };
    Ok(Section {
        title: "Overhead",
        text: format!(
            "A model with the architecture and size of trained ones (random weights, 30 MB) on a song of {SONG_SECONDS} s, \
             {chunks} chunks, `--threads {THREADS}`: {ROUNDS} rounds, each with one complete separation between two times \
             {BARE_RUNS} runs of the model alone on one chunk. Target: a ratio of at most 1.10."
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![
            row("model alone, per chunk (s)", bare)?,
            row("separation, per chunk (s)", complete)?,
            row("separation / model alone", ratios)?,
        ],
    })
}

/// The transform length, from the model's sidecar.
fn n_fft(model: &Path) -> Result<u64> {
    let sidecar = model.with_extension("json");
    let text =
        std::fs::read_to_string(&sidecar).with_context(|| format!("cannot read {}", sidecar.display()))?;
    let settings: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("cannot parse {}", sidecar.display()))?;
    settings["mdx_n_fft_scale_set"]
        .as_u64()
        .with_context(|| format!("{} has no mdx_n_fft_scale_set", sidecar.display()))
}

/// Number of chunks of a song: those that start before its last frame, after half a transform of silence.
/// Chunks that only cover the padding are not run and do not count.
fn chunk_count(song_frames: u64, n_fft: u64) -> u64 {
    let chunk = HOP * (FRAMES_PER_CHUNK - 1);
    let step = ((1.0 - OVERLAP) * chunk as f64).trunc() as u64;
    (n_fft / 2 + song_frames).div_ceil(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_counted_as_the_separation_cuts_them() {
        assert_eq!(chunk_count(1, 4096), 1);
        // The step is 195,840.
        assert_eq!(chunk_count(195_840 - 2_048, 4096), 1);
        assert_eq!(chunk_count(195_840 - 2_048 + 1, 4096), 2);
        // 60 s: 2,048 + 2,646,000 = 2,648,048; 13.52 steps.
        assert_eq!(chunk_count(2_646_000, 4096), 14);
    }
}
