//! Quality of any model on MUSDB18-HQ, which the user has: `DIR/test/SONG/{mixture,vocals,drums,bass,other}.wav`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::figures::{Section, Spread};
use crate::binaries::Binaries;
use crate::models;

/// The stems of a song. The instrumental has no file: where it is the mix without the vocals, its error is that of the
/// vocals.
const STEMS: [&str; 4] = ["vocals", "drums", "bass", "other"];

const TEST_SET: &str = "test";
const MIXTURE: &str = "mixture.wav";

/// Separates the songs of the test set with a model, by name or file; the default one unless it is given. `stems` is a
/// directory for files that are not kept.
pub(super) fn measure(
    binaries: &Binaries<'_>,
    directory: &Path,
    model: Option<&Path>,
    stems: &Path,
) -> Result<Section> {
    // The worker runs in the directory of the checkout.
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()));
    let model = match model {
        Some(file) if file.is_file() => absolute(file)?,
        Some(name) => name.to_owned(),
        None => models::NAME.into(),
    };
    let model = model.to_str().context("the model's path is not UTF-8")?;
    let settings = ["--stems", "all", "--bit-depth", "32f", "--model", model];
    let separate = |mixture: &Path| -> Result<BTreeMap<String, PathBuf>> {
        Ok(binaries.separate_one(mixture, stems, &settings)?.outputs)
    };
    let sdr_db = |reference: &Path, estimate: &Path| binaries.sdr_db(reference, estimate);
    Ok(Section {
        title: "MUSDB18-HQ",
        text: format!(
            "SDR in dB of the stems of the test set, over each complete song as in the Music Demixing Challenge (not the median \
             of museval's frames), with the model {model}. `-`: not a stem of the model, or the reference is silent."
        ),
        header: [&["song"][..], &STEMS].concat(),
        rows: rows(&absolute(directory)?.join(TEST_SET), separate, sdr_db)?,
    })
}

/// A row for each song below `directory`, and one with the medians.
fn rows(
    directory: &Path,
    separate: impl Fn(&Path) -> Result<BTreeMap<String, PathBuf>>,
    sdr_db: impl Fn(&Path, &Path) -> Result<f64>,
) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let mut columns: [Vec<f64>; STEMS.len()] = Default::default();
    for song in songs(directory)? {
        let estimates = separate(&song.join(MIXTURE))?;
        let mut row = vec![
            song.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        ];
        for (stem, column) in STEMS.into_iter().zip(&mut columns) {
            let reference = song.join(format!("{stem}.wav"));
            let figure = estimates.get(stem).map(|estimate| sdr_db(&reference, estimate));
            row.push(match figure {
                Some(Ok(figure)) => {
                    column.push(figure);
                    format!("{figure:.2}")
                }
                Some(Err(error)) => {
                    println!("{}: {error:#}", reference.display());
                    "-".to_owned()
                }
                None => "-".to_owned(),
            });
        }
        println!("{}", row.join("  "));
        rows.push(row);
    }
    let median = |column| {
        let spread = Spread::from_figures(column);
        spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.2}", spread.median))
    };
    rows.push([vec!["median".to_owned()], columns.map(median).to_vec()].concat());
    Ok(rows)
}

/// The directories of songs, in alphabetical order.
fn songs(directory: &Path) -> Result<Vec<PathBuf>> {
    let fix = "name the directory of MUSDB18-HQ that has the directory test";
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}; fix: {fix}", directory.display()))?;
    let mut songs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.join(MIXTURE).is_file() {
            songs.push(path);
        }
    }
    ensure!(
        !songs.is_empty(),
        "no song below {} has a {MIXTURE}; fix: {fix}",
        directory.display()
    );
    songs.sort();
    Ok(songs)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn data_set(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let song = directory.path().join(TEST_SET).join(name);
            fs::create_dir_all(&song).unwrap();
            for file in STEMS.into_iter().chain(["mixture"]) {
                fs::write(song.join(format!("{file}.wav")), "").unwrap();
            }
        }
        directory
    }

    /// A model with vocals and drums.
    fn separate(mixture: &Path) -> Result<BTreeMap<String, PathBuf>> {
        assert!(mixture.is_file() && mixture.ends_with(MIXTURE));
        let stems = ["vocals", "drums", "instrumental"];
        Ok(stems.map(|stem| (stem.to_owned(), mixture.to_owned())).into())
    }

    #[test]
    fn each_song_is_compared_with_its_own_references_and_medians_are_of_known_figures() {
        let directory = data_set(&["B - Two", "A - One", "C - Three"]);
        let sdr_db = |reference: &Path, estimate: &Path| -> Result<f64> {
            assert!(reference.is_file());
            assert_eq!(reference.parent(), estimate.parent());
            let song = reference.parent().unwrap();
            Ok(match reference.file_stem().unwrap().to_str().unwrap() {
                "vocals" if song.ends_with("A - One") => 1.0,
                "vocals" if song.ends_with("B - Two") => 2.0,
                "vocals" => 6.0,
                "drums" if song.ends_with("B - Two") => bail!("the reference is silent"),
                "drums" => 4.0,
                other => panic!("{other} is no stem of the model"),
            })
        };
        let rows = rows(&directory.path().join(TEST_SET), separate, sdr_db).unwrap();
        assert_eq!(
            rows,
            [
                ["A - One", "1.00", "4.00", "-", "-"],
                ["B - Two", "2.00", "-", "-", "-"],
                ["C - Three", "6.00", "4.00", "-", "-"],
                ["median", "2.00", "4.00", "-", "-"],
            ]
        );
    }

    #[test]
    fn another_directory_is_refused_with_the_fix() {
        let directory = data_set(&[]);
        let missing = songs(&directory.path().join(TEST_SET)).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("fix: name the directory of MUSDB18-HQ")
        );
        let empty = songs(directory.path()).unwrap_err();
        assert!(empty.to_string().contains("no song"));
    }
}
