//! Measurements, written to docs/benchmarks.md. Each scenario is one function.

mod cluster;
mod demo;
mod document;
mod figures;
mod machine;
mod memory;
mod operator;
mod overhead;
mod pipeline;
mod quality;
mod soaks;
mod speed;
mod startup;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::binaries::{Binaries, Mix, Profile};
use crate::project::Project;
use crate::songs;
use document::Document;
use figures::Section;
use machine::Measured;

/// Where everything lies that is measured with, under cargo's target directory. A run starts with it empty, so that
/// no figure is taken from a song or a model of an earlier checkout.
const DIRECTORY: &str = "bench";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only these scenarios; sections of others stay as they are
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Print figures, and write nothing down
    #[arg(long)]
    print: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Quality,
    Speed,
    Startup,
    Memory,
    Overhead,
    Messages,
    IdleMemory,
    Stall,
    Kills,
    Refusals,
    Rollouts,
    Decisions,
    HandOvers,
    Reaction,
    ThousandPools,
    Takeover,
    BrokersAway,
    ClusterFaults,
    ClusterStart,
    ImageSizes,
    Demo,
}

/// What every scenario works with.
struct Bench<'p> {
    project: &'p Project,
    binaries: Binaries<'p>,
    /// Mixes of real songs with exact references; the first one, repeated, is the long songs.
    mixes: Vec<Mix>,
    /// The machine's cores, as the worker's `--threads` takes them.
    threads: String,
}

/// `cargo xtask bench`.
pub(crate) fn bench(project: &Project, options: &Options) -> Result<()> {
    let bench = Bench::prepare(project)?;
    let measured = Measured::now(project)?;
    let every = Scenario::value_variants();
    let names: Vec<String> = every.iter().map(|scenario| scenario.name()).collect();
    let wanted = if options.only.is_empty() {
        every
    } else {
        &options.only
    };
    for scenario in wanted {
        let section = bench.run(*scenario)?;
        print!("\n{}", section.markdown());
        if !options.print {
            // At once: a later scenario may fail, or take longer than somebody has.
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

impl<'p> Bench<'p> {
    fn prepare(project: &'p Project) -> Result<Self> {
        let binaries = Binaries::build(project, Profile::Release)?;
        let songs = songs::install(project)?;
        let directory = project.target(DIRECTORY);
        remove_dir(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        println!("making the mixes");
        let mixes = binaries.mix(&songs, &directory, None)?;
        let cores = std::thread::available_parallelism().context("cannot count the cores")?;
        Ok(Self {
            project,
            binaries,
            mixes,
            threads: cores.to_string(),
        })
    }

    fn run(&self, scenario: Scenario) -> Result<Section> {
        println!("measuring {}", scenario.name());
        match scenario {
            Scenario::Quality => quality::measure(self),
            Scenario::Speed => speed::measure(self),
            Scenario::Startup => startup::measure(self),
            Scenario::Memory => memory::measure(self),
            Scenario::Overhead => overhead::measure(self),
            Scenario::Messages => pipeline::messages(self),
            Scenario::IdleMemory => pipeline::idle_memory(self),
            Scenario::Stall => pipeline::stall(self),
            Scenario::Kills => pipeline::kills(self),
            Scenario::Refusals => soaks::refusals(self),
            Scenario::Rollouts => soaks::rollouts(self),
            Scenario::Decisions => operator::decisions(self),
            Scenario::HandOvers => operator::hand_overs(self),
            Scenario::Reaction => operator::reaction(self),
            Scenario::ThousandPools => operator::thousand_pools(self),
            Scenario::Takeover => operator::takeover(self),
            Scenario::BrokersAway => operator::brokers_away(self),
            Scenario::ClusterFaults => cluster::faults(self),
            Scenario::ClusterStart => cluster::start(self),
            Scenario::ImageSizes => cluster::image_sizes(self),
            Scenario::Demo => demo::measure(self),
        }
    }

    /// A song of exactly so many seconds, made once per run.
    fn song(&self, seconds: u32) -> Result<PathBuf> {
        let song = self.file(&format!("song_{seconds}s.wav"));
        if !song.exists() {
            let first = self.mixes.first().context("separation-evaluation made no mix")?;
            self.binaries.loop_to(&first.mix, seconds, &song)?;
        }
        Ok(song)
    }

    /// Where stems go that nobody listens to.
    fn stems(&self) -> PathBuf {
        self.file("stems")
    }

    /// A file or directory that this run makes.
    fn file(&self, name: &str) -> PathBuf {
        self.project.target(DIRECTORY).join(name)
    }
}

/// Removes a directory, which need not be there.
fn remove_dir(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(refused) if refused.kind() != ErrorKind::NotFound => Err(refused),
        _ => Ok(()),
    }
}
