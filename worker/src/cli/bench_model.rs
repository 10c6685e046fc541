//! `separation-worker bench-model`: measures the model alone, as the baseline of complete separations.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;

use super::failure::Failure;
use super::printing::json_out;
use crate::audio::SAMPLE_RATE_HZ;
use crate::engine::Network as _;
use crate::locations::Locations;
use crate::model::{DEFAULT_MODEL, ModelChoice};
use crate::onnx::{MAX_THREADS, RuntimeOptions};
use crate::song::Separator;

#[derive(Debug, Args)]
pub(super) struct BenchModelArguments {
    /// Name of an installed model, or a file
    #[arg(long, default_value = DEFAULT_MODEL)]
    model: PathBuf,
    /// CPU threads
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: u16,
    /// Number of timed runs, after one warm-up run
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    runs: u16,
    /// Length of the song whose chunks are counted
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    song_seconds: u32,
}

/// Prints `{"chunk_frames": …, "song_chunks": …, "run_seconds": […]}`.
pub(super) fn run(arguments: &BenchModelArguments) -> Result<(), Failure> {
    Ok(measure(arguments)?)
}

fn measure(arguments: &BenchModelArguments) -> anyhow::Result<()> {
    let model = ModelChoice::from_setting(arguments.model.clone(), None, None);
    let options = RuntimeOptions::cpu(arguments.threads.into());
    let mut separator = Separator::load(&model, options, &Locations::from_environment())?;
    let song_frames = u64::from(arguments.song_seconds) * u64::from(SAMPLE_RATE_HZ);
    let song_chunks = separator.chunks(song_frames)?;
    let network = separator.network();
    let chunk = network.tensors().chunk;
    // Noise as loud as music: zeros could run faster on the CPU.
    let mut state = 1_u32;
    let noise: Vec<f32> = (0..chunk.values())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 * 100.0 - 50.0
        })
        .collect();
    let mut run_seconds = Vec::new();
    for run in 0..=arguments.runs {
        let mut values = noise.clone();
        let begin = Instant::now();
        network.run(1, &mut values, &[0])?;
        if run > 0 {
            run_seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    let report = serde_json::json!({
        "chunk_frames": chunk.chunk_frames(),
        "song_chunks": song_chunks,
        "run_seconds": run_seconds,
    });
    json_out(&report).context("cannot write the report")
}
