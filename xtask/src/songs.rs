//! Real audio for the demo, the tests and the benchmarks, from the packages pinned in `songs.toml`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cache::sha256;
use crate::packages::Package;
use crate::project::Project;

const PINS: &str = include_str!("../songs.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    package: Vec<PinnedSongs>,
}

#[derive(Debug, Deserialize)]
struct PinnedSongs {
    #[serde(flatten)]
    package: Package,
    /// A name pattern of the members that are songs.
    files: String,
}

/// Installs the songs into `<cache>/songs/`, unless they exist; returns that directory.
pub(crate) fn install(project: &Project) -> Result<PathBuf> {
    let pins = parse(PINS)?;
    let directory = project
        .cache()
        .install("songs", &sha256(PINS.as_bytes()), |filling| {
            pins.package
                .iter()
                .try_for_each(|songs| songs.package.fetch_files(project, &[&songs.files], filling))
        })
        .context("cannot install the songs")?;
    println!("songs are in {}", directory.display());
    Ok(directory)
}

fn parse(text: &str) -> Result<Pins> {
    toml::from_str(text).context("xtask/songs.toml is invalid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::Form;

    #[test]
    fn the_committed_pins_name_sources_of_voices_of_music_and_of_a_complete_song() {
        let pins = parse(PINS).unwrap();
        let forms: Vec<_> = pins.package.iter().map(|songs| &songs.package.form).collect();
        assert_eq!(forms, [&Form::Source, &Form::Wheel, &Form::Wheel]);
        assert!(pins.package.iter().all(|songs| songs.package.sha256.len() == 64));
    }
}
