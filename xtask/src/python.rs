//! Python environments with exactly the packages that a file of requirements pins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::sha256;
use crate::process;
use crate::project::Project;
use crate::system::{self, Need};

/// Creates a virtual environment below this directory of the cache, unless it exists; returns its interpreter.
///
/// The directory name has the hash of the requirements, so that branches with different ones do not replace
/// each other's environment.
pub(crate) fn install_environment(project: &Project, relative: &str, requirements: &str) -> Result<PathBuf> {
    let path = project.path(requirements);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let hash = sha256(&text);
    let directory = project
        .cache()
        .install(&format!("{relative}/{}", &hash[..16]), &hash, |filling| {
            create_environment(project, requirements, filling)
        })
        .with_context(|| format!("cannot install {requirements}"))?;
    Ok(directory.join("bin/python"))
}

/// Creates a virtual environment in an empty directory, with the wheels that `requirements`, a path in the checkout, pins
/// by checksum. It may be moved: its interpreter works anywhere, its scripts (pip) do not.
pub(crate) fn create_environment(project: &Project, requirements: &str, directory: &Path) -> Result<()> {
    system::ensure(&[Need::Pip, Need::Venv])?;
    println!("installing {requirements} into a virtual environment");
    process::run(project.command("python3").args(["-m", "venv"]).arg(directory))?;
    process::run(
        project
            .command(directory.join("bin/python"))
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
            .arg(project.path(requirements)),
    )
}
