//! All automation of this repository: `cargo xtask --help`.
//!
//! One file per subject. Nothing here is shipped or contains separation code: it installs the project's
//! requirements into the cache directory and runs cargo, pip and the project's own binaries.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an interactive program that prints its progress"
)]

mod archive;
mod bench;
mod binaries;
mod cache;
mod cargo_tools;
mod ci;
mod cluster;
mod components;
mod demo;
mod dist;
mod generate;
mod go;
mod images;
mod manifests;
mod models;
mod names;
mod node;
mod node_images;
mod onnx_runtime;
mod packages;
mod process;
mod project;
mod python;
mod server_images;
mod setup;
mod songs;
mod system;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::project::Project;

/// All automation of this repository.
///
/// Downloads are stored in $SEPARATION_CACHE_DIR, else $XDG_CACHE_HOME/separation, else ~/.cache/separation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                        build, separate a real song, print quality and speed
  cargo xtask demo song.mp3 other.flac    the same with your own songs; stems are written to stems/
  cargo xtask test                        install all requirements, run all tests
  cargo xtask test --fast                 unit and property tests, which need no servers
  cargo xtask test -- -p separation-worker audio   one package, tests whose name contains \"audio\"
  cargo xtask cluster up                  Kubernetes, Kafka and S3 on this machine, as root
  cargo xtask setup --cuda                ONNX Runtime for NVIDIA GPUs
  cargo xtask setup --tests               also the requirements of tests, for running `cargo test` directly
  cargo xtask bench --only memory         measure one scenario, update its section of docs/benchmarks.md
  cargo xtask dist                        all files of a release, into dist/
  cargo xtask dist --only wheel           one part of it";

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the worker and separate a song (by default, one mixed from real recordings)
    Demo(demo::Options),
    /// Install the requirements of the tests, then run all of them
    Test(test::Options),
    /// Start a Kubernetes cluster with Kafka and S3 on this machine, load our images, stop it
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Check formatting, lints, fuzz targets, documentation, licenses and generated files
    Ci,
    /// Install ONNX Runtime and the default model, and optionally the requirements of tests, into the cache directory
    Setup(setup::Options),
    /// Regenerate the generated files (models, fixtures, CRD, reference)
    Generate(generate::Options),
    /// Measure speed, memory and quality and write docs/benchmarks.md
    Bench(bench::Options),
    /// Build all files of a release into dist/: archives, wheel, images, chart, manifests, SBOMs, checksums
    Dist(dist::Options),
    /// Count the lines of product code: no blank lines, comments or tests
    Lines,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain in one line: a backtrace of this program would not help.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let project = Project::locate()?;
    match command {
        Command::Demo(options) => demo::demo(&project, &options),
        Command::Test(options) => test::test(&project, &options),
        Command::Cluster(command) => cluster::cluster(&project, &command),
        Command::Ci => ci::ci(&project),
        Command::Setup(options) => setup::setup(&project, &options),
        Command::Generate(options) => generate::generate(&project, &options),
        Command::Bench(options) => bench::bench(&project, &options),
        Command::Dist(options) => dist::dist(&project, &options),
        Command::Lines => {
            let counter = ["--quiet", "--locked", "--package", "separation-rules"];
            process::run(project.cargo("run").args(counter))
        }
    }
}
