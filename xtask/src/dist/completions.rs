//! Completion scripts, printed by the programs themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::programs;
use super::release::{Release, VERSION};
use crate::project::Project;
use crate::{archive, process};

/// Writes the archive of the scripts of both programs.
pub(super) fn write(release: &Release<'_>) -> Result<()> {
    let project = release.project;
    let staging = project.cache().temporary_dir()?;
    let worker = programs::worker(release, staging.path())?;
    let operator = programs::operator(release, staging.path())?;
    let name = format!("{}-{VERSION}-completions", release.names.name);
    scripts(project, &[worker.program, operator], &staging.path().join(&name))?;
    archive::compress(
        project,
        staging.path(),
        &name,
        &release.path(&format!("{name}.tar.gz")),
    )
}

/// Writes the scripts of these programs into a new directory, with the names that each shell looks for.
pub(super) fn scripts(project: &Project, programs: &[PathBuf], directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        for (shell, file) in [
            ("bash", format!("{name}.bash")),
            ("fish", format!("{name}.fish")),
            ("zsh", format!("_{name}")),
        ] {
            let script = process::read(project.command(program).args(["completions", shell]))?;
            let path = directory.join(file);
            fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}
