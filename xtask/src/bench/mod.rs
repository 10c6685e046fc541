//! Benchmarks, written to docs/benchmarks.md. Each scenario is one function.

mod cluster;
mod context;
mod demo;
mod document;
mod figures;
mod machine;
mod memory;
mod musdb;
mod operator;
mod overhead;
mod pipeline;
mod policy;
mod quality;
mod soaks;
mod speed;
mod startup;
mod trace;
mod validation;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::binaries::{Binaries, Profile};
use crate::project::Project;
use context::Bench;
use document::Document;
use figures::Section;
use machine::Measured;

/// Directory of the document's images.
const IMAGES: &str = "docs/images";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only these scenarios; sections of others stay unchanged
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Print results without writing the document
    #[arg(long)]
    print: bool,
    /// With `--only quality`: measure and print the quality on MUSDB18-HQ, in this directory, in place of our mixes
    #[arg(long, value_name = "DIR", requires = "only")]
    musdb: Option<PathBuf>,
    /// Recorded trace of the policies' scenarios: CSV with the header arrival_seconds,task_seconds [default: a synthetic
    /// trace]
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Length of the healthy hour
    #[arg(long, value_name = "MINUTES", default_value = "60", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// With --musdb: name of an installed model, or a file [default: the default model]
    #[arg(long, value_name = "NAME|FILE", requires = "musdb")]
    model: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Quality,
    Speed,
    Startup,
    Memory,
    Overhead,
    Oracles,
    Messages,
    IdleMemory,
    Stall,
    Kills,
    Api,
    Refusals,
    Rollouts,
    ForeignConsumers,
    Policy,
    PolicyValidation,
    Rotations,
    Decisions,
    ScaleDown,
    Reaction,
    ThousandPools,
    Takeover,
    BrokersUnreachable,
    ClusterFaults,
    Evictions,
    ClusterStart,
    ReactionStages,
    Recording,
    LocalImage,
    HealthyHour,
    ImageSizes,
    Demo,
}

/// `cargo xtask bench`.
pub(crate) fn bench(project: &Project, options: &Options) -> Result<()> {
    if let Some(directory) = &options.musdb {
        ensure!(
            options.only == [Scenario::Quality],
            "--musdb is for the quality alone; fix: add --only quality"
        );
        let binaries = Binaries::build(project, Profile::Dist)?;
        let stems = tempfile::tempdir().context("cannot create a directory for stems")?;
        let section = musdb::measure(&binaries, directory, options.model.as_deref(), stems.path())?;
        print!("\n{}", section.markdown());
        return Ok(());
    }
    let trace = options.trace.as_ref().map(std::path::absolute).transpose();
    let mut bench = Bench::prepare(project)?;
    bench.trace = trace.context("no current directory")?;
    bench.minutes = options.minutes;
    bench.images = (!options.print).then(|| project.path(IMAGES));
    let measured = Measured::now(project)?;
    let every = Scenario::value_variants();
    let names: Vec<String> = every.iter().map(|scenario| scenario.name()).collect();
    let selected = if options.only.is_empty() {
        every
    } else {
        &options.only
    };
    for scenario in selected {
        let section = run(&bench, *scenario)?;
        print!("\n{}", section.markdown());
        if !options.print {
            // Written after each scenario: a later one may fail or be interrupted.
            let mut document = Document::read(project);
            document.put(&scenario.name(), &section, &measured);
            document.write(project, &names)?;
        }
    }
    Ok(())
}

impl Scenario {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn run(bench: &Bench<'_>, scenario: Scenario) -> Result<Section> {
    println!("measuring {}", scenario.name());
    match scenario {
        Scenario::Quality => quality::measure(bench),
        Scenario::Speed => speed::measure(bench),
        Scenario::Startup => startup::measure(bench),
        Scenario::Memory => memory::measure(bench),
        Scenario::Overhead => overhead::measure(bench),
        Scenario::Oracles => soaks::oracles(bench),
        Scenario::Messages => pipeline::messages(bench),
        Scenario::IdleMemory => pipeline::idle_memory(bench),
        Scenario::Stall => pipeline::stall(bench),
        Scenario::Kills => pipeline::kills(bench),
        Scenario::Api => pipeline::api(bench),
        Scenario::Refusals => soaks::refusals(bench),
        Scenario::Rollouts => soaks::rollouts(bench),
        Scenario::ForeignConsumers => soaks::foreign_consumers(bench),
        Scenario::Policy => policy::measure(bench),
        Scenario::PolicyValidation => validation::measure(bench),
        Scenario::Rotations => soaks::rotations(bench),
        Scenario::Decisions => operator::decisions(bench),
        Scenario::ScaleDown => operator::scale_down(bench),
        Scenario::Reaction => operator::reaction(bench),
        Scenario::ThousandPools => operator::thousand_pools(bench),
        Scenario::Takeover => operator::takeover(bench),
        Scenario::BrokersUnreachable => operator::brokers_unreachable(bench),
        Scenario::ClusterFaults => cluster::faults(bench),
        Scenario::Evictions => cluster::evictions(bench),
        Scenario::ClusterStart => cluster::start(bench),
        Scenario::ReactionStages => cluster::reaction_stages(bench),
        Scenario::Recording => cluster::recording(bench),
        Scenario::LocalImage => cluster::local_image(bench),
        Scenario::HealthyHour => cluster::healthy_hour(bench),
        Scenario::ImageSizes => cluster::image_sizes(bench),
        Scenario::Demo => demo::measure(bench),
    }
}
