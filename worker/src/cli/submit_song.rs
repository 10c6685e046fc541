//! Songs that are named on the command line: files, directories and links.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use url::Url;

use super::song_files::has_song_extension;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Song {
    /// Path or link, as posted and reported.
    pub(super) address: String,
    /// The file; none for a link.
    pub(super) file: Option<PathBuf>,
    /// File name, for display.
    pub(super) name: String,
    /// Prefix of the stems' file names.
    pub(super) stem: String,
}

/// Adds the songs of one argument.
pub(super) fn collect(text: &str, songs: &mut Vec<Song>) -> Result<()> {
    if text.starts_with("http://") || text.starts_with("https://") {
        songs.push(link(text)?);
        return Ok(());
    }
    let path = Path::new(text);
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {text}"))?;
    if !metadata.is_dir() {
        songs.push(file(path)?);
        return Ok(());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {text}"))? {
        let path = entry.with_context(|| format!("cannot read {text}"))?.path();
        // A file that is named is posted whatever its name.
        if path.is_file() && has_song_extension(&path) {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("{text} contains no songs");
    }
    found.sort();
    for path in found {
        songs.push(file(&path)?);
    }
    Ok(())
}

fn file(path: &Path) -> Result<Song> {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    Ok(Song {
        address: path.display().to_string(),
        file: Some(path.to_owned()),
        name: part(path.file_name()).with_context(|| format!("{} is not a file", path.display()))?,
        stem: part(path.file_stem()).with_context(|| format!("{} is not a file", path.display()))?,
    })
}

fn link(text: &str) -> Result<Song> {
    let url = Url::parse(text).with_context(|| format!("cannot read the link {text}"))?;
    let last = url.path_segments().and_then(|mut segments| segments.next_back());
    let last = last
        .filter(|last| !last.is_empty())
        .or(url.host_str())
        .unwrap_or("song");
    let stem = Path::new(last)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or(last);
    Ok(Song {
        address: text.to_owned(),
        file: None,
        name: last.to_owned(),
        // Part of a file name on this machine.
        stem: stem.replace(|c: char| !c.is_alphanumeric() && !"-_. ".contains(c), "_"),
    })
}

pub(super) fn check_names(songs: &[Song]) -> Result<()> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for song in songs {
        if let Some(other) = owners.insert(&song.stem, &song.address) {
            let (stem, address) = (&song.stem, &song.address);
            bail!(
                "{other} and {address} would both be downloaded to {stem}_vocals.wav; fix: submit them with two --output directories"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_only_its_songs_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["b.mp3", "a.FLAC", "cover.jpg", "notes.txt"] {
            fs::write(directory.path().join(name), "x").expect("a file");
        }
        let mut songs = Vec::new();
        collect(directory.path().to_str().expect("UTF-8"), &mut songs).expect("songs");
        let stems: Vec<_> = songs.iter().map(|song| song.stem.as_str()).collect();
        assert_eq!(stems, ["a", "b"]);
        check_names(&songs).expect("two names");
        songs.push(songs[0].clone());
        assert!(check_names(&songs).is_err());
        let empty = tempfile::tempdir().expect("a directory");
        assert!(collect(empty.path().to_str().expect("UTF-8"), &mut songs).is_err());
    }

    #[test]
    fn the_name_of_a_link_is_one_path_component() {
        for (text, stem) in [
            ("https://example.com/a/song.mp3?x=1", "song"),
            ("https://example.com/", "example"),
            (
                "https://example.com/..%2F..%2Fetc",
                "..%2F..%2Fetc".replace('%', "_").as_str(),
            ),
        ] {
            let song = link(text).expect("a link");
            assert!(!song.stem.contains('/'), "{}", song.stem);
            if !text.contains('%') {
                assert_eq!(song.stem, stem);
            }
        }
    }
}
