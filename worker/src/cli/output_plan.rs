//! The output files of all songs, checked before the first one is separated.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::name_template::NameTemplate;
use super::song_files::SongFile;
use crate::model::StemName;
use crate::song::StemOutput;

/// How stems are named.
pub(super) struct OutputNames<'n> {
    pub(super) output_dir: &'n Path,
    pub(super) template: &'n NameTemplate,
    pub(super) extension: &'static str,
}

impl OutputNames<'_> {
    /// The output files of each song's stems. No two are the same, and none is a song.
    pub(super) fn plan(&self, songs: &[SongFile], stems: &[StemName]) -> Result<Vec<Vec<StemOutput>>> {
        let (output_dir, template) = (self.output_dir, self.template);
        ensure!(
            stems.len() < 2 || template.has_stem(),
            "--name {template} gives all stems of a song the same name; fix: add {{stem}}, or select one of them with \
             --stems"
        );
        let resolved_dir = fs::canonicalize(output_dir)
            .with_context(|| format!("cannot use --output-dir {}", output_dir.display()))?;
        // A missing input is reported when it is separated.
        let inputs: HashSet<PathBuf> = songs
            .iter()
            .flat_map(|song| fs::canonicalize(&song.path))
            .collect();
        let mut owners: HashMap<PathBuf, &Path> = HashMap::new();
        let mut planned = Vec::with_capacity(songs.len());
        for song in songs {
            let mut outputs = Vec::with_capacity(stems.len());
            for stem in stems {
                let below = self.path_below(song, stem)?;
                let destination = resolved(resolved_dir.join(&below));
                let (input, name) = (song.path.display(), below.display());
                ensure!(
                    !inputs.contains(&destination),
                    "{} would be replaced by a stem of {input}; fix: use another --output-dir",
                    destination.display()
                );
                if let Some(other) = owners.insert(destination, &song.path) {
                    let fix = match template.has_name() {
                        true => "rename one, or use two output directories",
                        false => "add {name} to --name",
                    };
                    bail!(
                        "{} and {input} would both be written to {name}; fix: {fix}",
                        other.display()
                    );
                }
                outputs.push(StemOutput {
                    stem: stem.clone(),
                    path: output_dir.join(below),
                });
            }
            planned.push(outputs);
        }
        Ok(planned)
    }

    /// Path of a stem below the output directory.
    fn path_below(&self, song: &SongFile, stem: &StemName) -> Result<PathBuf> {
        let name = song.path.file_stem();
        let name = name.with_context(|| format!("{} is not a file name", song.path.display()))?;
        Ok(song
            .directory
            .join(self.template.path(name, stem, self.extension)?))
    }
}

/// Resolves links in the directory of a file, if it exists.
fn resolved(path: PathBuf) -> PathBuf {
    let parts = path.parent().zip(path.file_name());
    let resolved = parts.and_then(|(directory, name)| Some(fs::canonicalize(directory).ok()?.join(name)));
    resolved.unwrap_or(path)
}
