//! Files of a release as users check and unpack them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::checksums;
use super::release::{Release, name_for_architecture};
use crate::binaries::{Binaries, Profile};
use crate::project::Project;
use crate::{process, songs};

/// A song in the working directory of users.
pub(super) const SONG: &str = "SONG.mp3";

/// Writes the song.
pub(super) fn write_song(project: &Project, directory: &Path) -> Result<()> {
    let song = Binaries::build(project, Profile::Tested)?
        .mix(&songs::install(project)?, &project.target("demo"), Some(1))?
        .pop()
        .context("separation-evaluation made no mix")?;
    // The content of a file decides its format, not its name.
    fs::copy(&song.mix, directory.join(SONG)).context("cannot copy the song")?;
    Ok(())
}

/// Fails if a checksum is wrong, if the program in the archive of the command line does not separate the song in
/// `directory`, or if the image of `local`, where there is one, has lost its health check.
pub(super) fn check(release: &Release<'_>, directory: &Path) -> Result<()> {
    let project = release.project;
    let mut checking = project.command("sha256sum");
    checking.current_dir(&release.directory);
    process::run(checking.args(["--check", "--strict"]).arg(checksums::file()))?;

    let name = name_for_architecture(&release.names.name);
    let mut unpacking = project.command("tar");
    unpacking
        .arg("--directory")
        .arg(directory)
        .args(["--extract", "--gzip", "--file"]);
    process::run(unpacking.arg(release.path(&format!("{name}.tar.gz"))))?;
    let output = directory.join("stems-of-archive");
    let mut separate = project.command(directory.join(&name).join("separation-worker"));
    // The program finds no cache, no other program and no configuration.
    separate.env_clear().env("HOME", directory).current_dir(directory);
    process::run(separate.args(["separate", SONG, "--output-dir"]).arg(&output))?;
    for stem in ["SONG_vocals.wav", "SONG_instrumental.wav"] {
        ensure!(output.join(stem).is_file(), "the stem {stem} does not exist");
    }

    let local = release.path(&format!(
        "{}.docker.tar",
        name_for_architecture("separation-local")
    ));
    if local.is_file() {
        let mut reading = project.command("tar");
        reading.args(["--extract", "--to-stdout", "--wildcards", "--file"]);
        let configuration = process::read(reading.arg(&local).arg("*.json"))?;
        ensure!(
            configuration.contains("\"Healthcheck\""),
            "{} has no health check; fix: check its format",
            local.display()
        );
    }
    Ok(())
}
