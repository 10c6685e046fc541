//! Generated files that are committed: written again, or checked for freshness.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cache::sha256;
use crate::process;
use crate::project::Project;
use crate::system::{self, Need};

const GENERATOR: &str = "separation/models/generate.py";
const REQUIREMENTS: &str = "separation/models/requirements.txt";
/// The definition of SeparationPool; the chart can only read what lies in its own folder.
const DEFINITIONS: [&str; 2] = [
    "crds/separationpools.yaml",
    "charts/separation-operator/files/separationpools.yaml",
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write nothing; fail when a committed file is not what would be generated
    #[arg(long)]
    check: bool,
}

/// `cargo xtask generate`.
pub(crate) fn generate(project: &Project, options: &Options) -> Result<()> {
    generate_definitions(project, options)?;
    let python = install_python(project)?;
    for subject in ["builtin", "fixtures"] {
        let mut command = project.command(&python);
        command.args([GENERATOR, subject]);
        if options.check {
            command.arg("--check");
        }
        println!(
            "{GENERATOR} {subject}{}",
            if options.check { " --check" } else { "" }
        );
        if let Err(failed) = process::run(&mut command) {
            if options.check {
                bail!("{failed}; fix: `cargo xtask generate`, then look at what changed and commit it");
            }
            return Err(failed);
        }
    }
    Ok(())
}

/// The definition of SeparationPool, as the operator prints it.
fn generate_definitions(project: &Project, options: &Options) -> Result<()> {
    // One test program of its package brings it along.
    process::run(project.tests_build().arg("--test=local"))?;
    let mut operator = project.command(project.target("debug/separation-operator"));
    operator.arg("crd");
    let fresh = process::read(&mut operator)?;
    for definition in DEFINITIONS {
        println!("{definition}{}", if options.check { " --check" } else { "" });
        let path = project.path(definition);
        if !options.check {
            fs::write(&path, &fresh).with_context(|| format!("cannot write {}", path.display()))?;
        } else if fs::read_to_string(&path).ok().as_ref() != Some(&fresh) {
            bail!(
                "{definition} is stale; fix: `cargo xtask generate`, then look at what changed and commit it"
            );
        }
    }
    Ok(())
}

/// Writes a model of the topology and size of trained ones, with random weights, for measuring.
pub(crate) fn topology_model(project: &Project, output: &PathBuf) -> Result<()> {
    let python = install_python(project)?;
    process::run(
        project
            .command(&python)
            .args([GENERATOR, "topology", "--output"])
            .arg(output),
    )
}

/// Installs a Python with what the generator requires, unless it is there; gives its interpreter.
///
/// The environment's directory is named by the hash of the requirements, so that branches with different ones
/// do not take it from each other.
pub(crate) fn install_python(project: &Project) -> Result<PathBuf> {
    let requirements = project.path(REQUIREMENTS);
    let text = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let hash = sha256(&text);
    let relative = format!("python/{}", &hash[..16]);
    let directory = project
        .cache()
        .install(&relative, &hash, |filling| {
            system::ensure(&[Need::Pip, Need::Venv])?;
            println!("installing {REQUIREMENTS} into a virtual environment");
            process::run(project.command("python3").args(["-m", "venv"]).arg(filling))?;
            process::run(
                project
                    .command(filling.join("bin/python"))
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--no-input",
                        "--progress-bar=off",
                    ])
                    .args([
                        "--disable-pip-version-check",
                        "--only-binary=:all:",
                        "--require-hashes",
                    ])
                    .arg("--requirement")
                    .arg(&requirements),
            )
        })
        .context("cannot install the model generator's Python")?;
    println!("the model generator's Python is in {}", directory.display());
    // The environment was moved after it was filled: its interpreter works anywhere, its scripts (pip) do not.
    Ok(directory.join("bin/python"))
}
