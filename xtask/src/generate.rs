//! Committed generated files: regenerates them, or checks that they are up to date.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cache::sha256;
use crate::process;
use crate::project::Project;
use crate::python::create_environment;

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
    // The features of all other builds of tests, so that nothing is compiled twice.
    let mut tests = project.cargo("test");
    tests.args(["--workspace", "--all-features", "--locked", "--quiet"]);
    tests.args(["--lib", "--bins", TESTS]);
    if !options.check {
        tests.env(WRITE, "1");
    }
    run(&mut tests, options)?;
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
///
/// The directory name has the hash of the requirements, so that branches with different ones do not replace
/// each other's environment.
pub(crate) fn install_python(project: &Project) -> Result<PathBuf> {
    let requirements = project.path(REQUIREMENTS);
    let text = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let hash = sha256(&text);
    let relative = format!("python/{}", &hash[..16]);
    let directory = project
        .cache()
        .install(&relative, &hash, |filling| {
            create_environment(project, REQUIREMENTS, filling)
        })
        .context("cannot install the model generator's Python")?;
    println!("the model generator's Python is in {}", directory.display());
    Ok(directory.join("bin/python"))
}
