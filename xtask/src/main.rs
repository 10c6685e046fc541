//! All automation of this repository: `cargo xtask --help`.
//!
//! One file per subject. Nothing here is shipped, and nothing here knows how separation works: it installs what
//! the project needs into the cache directory and starts cargo, pip and the project's own binaries.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling people what it does is what this program is for"
)]

mod archive;
mod bench;
mod binaries;
mod cache;
mod ci;
mod cluster;
mod demo;
mod generate;
mod go;
mod images;
mod node;
mod node_images;
mod packages;
mod parts;
mod process;
mod project;
mod setup;
mod songs;
mod system;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::project::Project;

/// All automation of this repository.
///
/// What is downloaded goes into $SEPARATION_CACHE_DIR, else $XDG_CACHE_HOME/separation, else ~/.cache/separation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                        build, separate a real song, say how well and how fast
  cargo xtask demo song.mp3 other.flac    the same with songs of your own; stems land in stems/
  cargo xtask test                        everything that can be tested
  cargo xtask test -- -p separation-worker audio   one package, tests whose name contains \"audio\"
  cargo xtask cluster up                  Kubernetes, Kafka and S3 on this machine, as root
  cargo xtask setup --cuda                ONNX Runtime for NVIDIA GPUs
  cargo xtask setup --tests               also what tests need, for `cargo test` by hand
  cargo xtask bench --only memory         one scenario, printed and not written down";

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the worker and separate a song (a real one is made when none is given)
    Demo(demo::Options),
    /// Install all that tests need, then run every test
    Test(test::Options),
    /// Bring up a Kubernetes cluster with Kafka and S3 on this machine, give it our images, end it
    #[command(subcommand)]
    Cluster(cluster::Step),
    /// Check formatting, lints, fuzz targets, documentation, licences and generated files
    Ci,
    /// Install ONNX Runtime, and on request what tests need, into the cache directory
    Setup(setup::Options),
    /// Write the generated files (models, fixtures) again
    Generate(generate::Options),
    /// Measure speed, memory and quality and write docs/benchmarks.md
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain in one line: a backtrace of this program says nothing about what failed.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let project = Project::locate()?;
    match task {
        Task::Demo(options) => demo::demo(&project, &options),
        Task::Test(options) => test::test(&project, &options),
        Task::Cluster(step) => cluster::cluster(&project, &step),
        Task::Ci => ci::ci(&project),
        Task::Setup(options) => setup::setup(&project, &options),
        Task::Generate(options) => generate::generate(&project, &options),
        Task::Bench(options) => bench::bench(&project, &options),
    }
}
