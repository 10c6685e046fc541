//! Committed generated files: regenerates them, or checks that they are up to date.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::manifests;
use crate::names;
use crate::process;
use crate::project::Project;
use crate::python::install_environment;

const GENERATOR: &str = "separation/models/generate.py";
const REQUIREMENTS: &str = "separation/models/requirements.txt";

/// Tests with this in their name compare committed files with generated ones: the CRD and the reference.
const TESTS: &str = "is_up_to_date";

/// With this variable they write the files.
const WRITE: &str = "SEPARATION_WRITE_GENERATED";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a committed file is out of date
    #[arg(long)]
    check: bool,
}

/// `cargo xtask generate`.
pub(crate) fn generate(project: &Project, options: &Options) -> Result<()> {
    // First: the other files are generated from sources with these names.
    names::generate(project, options.check)?;
    // The features of all other builds of tests, so that nothing is compiled twice.
    let mut tests = project.cargo("test");
    tests.args(["--workspace", "--all-features", "--locked", "--quiet"]);
    tests.args(["--lib", "--bins", TESTS]);
    if !options.check {
        tests.env(WRITE, "1");
    }
    run(&mut tests, options)?;
    manifests::generate_quickstart(project, options.check)?;
    let python = install_python(project)?;
    for subject in ["builtin", "spleeter", "fixtures"] {
        let mut command = project.command(&python);
        command.args([GENERATOR, subject]);
        if options.check {
            command.arg("--check");
        }
        run(&mut command, options)?;
    }
    Ok(())
}

fn run(command: &mut Command, options: &Options) -> Result<()> {
    println!("{}", process::line(command));
    match process::run(command) {
        Err(failed) if options.check => {
            bail!("{failed}; fix: `cargo xtask generate`, then review and commit the changes")
        }
        result => result,
    }
}

/// Writes a model of this tensor contract with the architecture and size of trained ones and random weights, for
/// benchmarks.
pub(crate) fn topology_model(project: &Project, contract: &str, output: &PathBuf) -> Result<()> {
    let python = install_python(project)?;
    process::run(
        project
            .command(&python)
            .args([GENERATOR, "topology", contract, "--output"])
            .arg(output),
    )
}

/// Installs a Python environment with the generator's requirements, unless it exists; returns its
/// interpreter.
pub(crate) fn install_python(project: &Project) -> Result<PathBuf> {
    let python = install_environment(project, "python", REQUIREMENTS)?;
    println!("the model generator's Python is {}", python.display());
    Ok(python)
}
