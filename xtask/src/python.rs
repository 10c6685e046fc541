//! Python environments with exactly the packages that a file of requirements pins.

use std::path::Path;

use anyhow::Result;

use crate::process;
use crate::project::Project;
use crate::system::{self, Need};

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
