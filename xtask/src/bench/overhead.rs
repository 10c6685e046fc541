//! Overhead around the model: a complete separation compared with runs of the model alone.

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};
use crate::generate;

const THREADS: &str = "2";

/// A model with the architecture and size of trained ones, and random weights.
struct Topology {
    /// Its tensor contract, by which the generator names it.
    contract: &'static str,
    architecture: &'static str,
    song_seconds: u32,
    rounds: u32,
    /// Runs of the model alone before and after each separation.
    bare_runs: u32,
}

/// The last one takes half a minute for a chunk on two cores.
const TOPOLOGIES: [Topology; 3] = [
    Topology {
        contract: "mdx-net",
        architecture: "MDX-Net",
        song_seconds: 60,
        rounds: 5,
        bare_runs: 3,
    },
    Topology {
        contract: "waveform",
        architecture: "HTDemucs",
        song_seconds: 60,
        rounds: 3,
        bare_runs: 3,
    },
    Topology {
        contract: "real-imaginary",
        architecture: "BS-RoFormer",
        song_seconds: 20,
        rounds: 1,
        bare_runs: 2,
    },
];

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Vec::new();
    for topology in TOPOLOGIES {
        rows.extend(topology.rows(bench)?);
    }
    Ok(Section {
        title: "Overhead",
        text: format!(
            "Models with the architecture and size of trained ones and random weights (MDX-Net 30 MB, HTDemucs 168 MB, \
             BS-RoFormer 415 MB, with 3 of its 12 blocks), `--threads {THREADS}`, in rounds, each with one complete separation \
             between runs of the model alone on one chunk. Target: a ratio of at most 1.10. Memory is the peak of the process \
             in MB (10^6 bytes)."
        ),
        header: vec!["", "min", "median", "max"],
        rows,
    })
}

impl Topology {
    /// Measures in rounds, each a complete separation between two measurements of the model alone, so that a machine that
    /// becomes slower affects both.
    fn rows(&self, bench: &Bench<'_>) -> Result<Vec<Vec<String>>> {
        let model = bench.file(&format!("{}.onnx", self.contract));
        generate::topology_model(bench.project, self.contract, &model)?;
        let song = bench.song(self.song_seconds)?;
        let model_text = model.to_str().context("the checkout's path is not UTF-8")?;
        let settings = ["--threads", THREADS, "--model", model_text];
        let (mut bare, mut complete, mut ratios, mut peaks) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut chunks = 0.0;
        for _ in 0..self.rounds {
            let bare_runs = || {
                bench
                    .binaries()?
                    .bare_runs(&model, THREADS, self.bare_runs, self.song_seconds)
            };
            let before = bare_runs()?;
            let separation = bench.binaries()?.separate_one(&song, &bench.stems(), &settings)?;
            let after = bare_runs()?;
            chunks = before.song_chunks as f64;
            let runs = [before.run_seconds, after.run_seconds].concat();
            let run = Spread::from_figures(runs)
                .context("bench-model ran nothing")?
                .median;
            bare.push(run);
            complete.push(separation.wall_seconds / chunks);
            ratios.push(separation.wall_seconds / (chunks * run));
            peaks.push(separation.peak_memory_bytes as f64 / 1e6);
        }
        let name = self.architecture;
        Ok(vec![
            Spread::row(format!("{name}: model alone, per chunk (s)"), bare, 3)?,
            Spread::row(
                format!("{name}: separation, {chunks} chunks, per chunk (s)"),
                complete,
                3,
            )?,
            Spread::row(format!("{name}: separation / model alone"), ratios, 3)?,
            Spread::row(format!("{name}: memory of the separation (MB)"), peaks, 0)?,
        ])
    }
}
