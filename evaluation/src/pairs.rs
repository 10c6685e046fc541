//! The six mixes of the quality benchmark: each of two voices over the first three instrumentals by name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const VOICES: usize = 2;
const INSTRUMENTALS: usize = 3;

/// A voice and an instrumental to mix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Both names, as the prefix of file names.
    pub name: String,
    /// A song that is only a voice.
    pub voice: PathBuf,
    /// A song without a voice.
    pub music: PathBuf,
}

/// The six pairs of the songs that `cargo xtask` puts into a directory, in a fixed order.
///
/// # Errors
/// If the directory cannot be read or lacks the songs.
pub fn six_pairs(songs: &Path) -> Result<Vec<Pair>> {
    let fix = "fix: `cargo xtask test` or `cargo xtask demo` installs the songs";
    let files = fs::read_dir(songs)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}; {fix}", songs.display()))?;
    let pairs = pairs(files);
    ensure!(
        pairs.len() == VOICES * INSTRUMENTALS,
        "{} does not contain {VOICES} voices (vocadito_*.wav) and {INSTRUMENTALS} instrumentals (*.opus); {fix}",
        songs.display()
    );
    Ok(pairs)
}

fn pairs(mut files: Vec<PathBuf>) -> Vec<Pair> {
    files.sort();
    let voices = files.iter().filter(|file| {
        stem(file).starts_with("vocadito_") && file.extension().is_some_and(|kind| kind == "wav")
    });
    let music: Vec<_> = files
        .iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "opus"))
        .take(INSTRUMENTALS)
        .collect();
    voices
        .take(VOICES)
        .flat_map(|voice| music.iter().map(move |music| (voice, *music)))
        .map(|(voice, music)| Pair {
            name: format!("{}_over_{}", stem(voice), stem(music)),
            voice: voice.clone(),
            music: music.clone(),
        })
        .collect()
}

fn stem(file: &Path) -> std::borrow::Cow<'_, str> {
    file.file_stem().unwrap_or_default().to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_voice_is_paired_with_the_first_three_instrumentals() {
        let files = "d.opus vocadito_14.wav c.opus a.wav b.opus .installed vocadito_10.wav a.opus";
        let names: Vec<_> = pairs(files.split(' ').map(PathBuf::from).collect())
            .into_iter()
            .map(|pair| pair.name)
            .collect();
        assert_eq!(
            names,
            [
                "vocadito_10_over_a",
                "vocadito_10_over_b",
                "vocadito_10_over_c",
                "vocadito_14_over_a",
                "vocadito_14_over_b",
                "vocadito_14_over_c"
            ]
        );
    }

    #[test]
    fn a_directory_without_the_songs_is_refused_with_the_fix() {
        let refused = six_pairs(Path::new(env!("CARGO_MANIFEST_DIR")))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("cargo xtask demo"), "{refused}");
    }
}
