//! The songs of the command line: files, and the songs in directories.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use walkdir::{DirEntry, WalkDir};

use crate::audio::is_recognized;

/// File extensions of songs.
const EXTENSIONS: [&str; 18] = [
    "aac", "aif", "aiff", "alac", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp3", "mp4", "oga",
    "ogg", "opus", "wav", "webm",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SongFile {
    pub(super) path: PathBuf,
    /// Path from the searched directory to the directory of the song; empty for a file that is named.
    pub(super) directory: PathBuf,
}

/// Songs in a directory and its sub-directories.
#[derive(Debug, Default)]
pub(super) struct FoundSongs {
    /// Sorted by name within each directory.
    pub(super) songs: Vec<SongFile>,
    /// Files that are not songs.
    pub(super) skipped: usize,
}

pub(super) fn has_song_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&&*extension.to_ascii_lowercase()))
}

/// Finds the files in `directory` that have the extension or the content of a song. Follows links. Leaves out hidden
/// files and everything below `output_dir`, an absolute path without links.
pub(super) fn search(directory: &Path, output_dir: &Path) -> Result<FoundSongs> {
    let name = directory.display();
    let is_output = |path: &Path| fs::canonicalize(path).is_ok_and(|path| path == output_dir);
    ensure!(
        !is_output(directory),
        "{name} is also --output-dir, and stems in it would be separated like songs; fix: use another --output-dir, \
         for example {}",
        directory.join("stems").display()
    );
    let is_searched = |entry: &DirEntry| {
        let is_left_out = is_hidden(entry) || entry.file_type().is_dir() && is_output(entry.path());
        entry.depth() == 0 || !is_left_out
    };
    let entries = WalkDir::new(directory).follow_links(true).sort_by_file_name();
    let mut found = FoundSongs::default();
    for entry in entries.into_iter().filter_entry(is_searched) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) if is_song(&entry) => {
                let path = entry.into_path();
                let below = path.strip_prefix(directory).unwrap_or(&path);
                let directory = below.parent().unwrap_or(Path::new("")).to_owned();
                found.songs.push(SongFile { path, directory });
            }
            Ok(_) => found.skipped += 1,
            // A link to a directory above it, whose songs are found there.
            Err(error) if error.loop_ancestor().is_some() => {}
            Err(error) if error.path().is_some_and(is_broken_link) => found.skipped += 1,
            Err(error) => return Err(error).with_context(|| format!("cannot search {name} for songs")),
        }
    }
    ensure!(
        !found.songs.is_empty(),
        "{name} contains no songs, and {} other files; fix: name the files, which are then separated whatever their \
         names",
        found.skipped
    );
    Ok(found)
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn is_song(entry: &DirEntry) -> bool {
    // An unreadable file with a song's extension is reported when it is separated.
    entry.file_type().is_file()
        && (has_song_extension(entry.path()) || is_recognized(entry.path()).unwrap_or(false))
}

fn is_broken_link(path: &Path) -> bool {
    path.is_symlink() && path.metadata().is_err()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with these files, whose content is not audio.
    fn directory(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for name in names {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "text").expect("a file");
        }
        directory
    }

    /// The songs below a directory, relative to it, and the number of skipped files.
    fn found(directory: &Path, output_dir: &Path) -> (Vec<String>, usize) {
        let found = search(directory, output_dir).expect("songs");
        let names = found.songs.iter().map(|song| {
            let name = song.path.file_name().expect("a name");
            song.directory.join(name).display().to_string()
        });
        (names.collect(), found.skipped)
    }

    #[test]
    fn songs_of_all_sub_directories_are_found_in_order_and_other_files_are_counted() {
        let directory = directory(&[
            "b.mp3",
            "a/2.FLAC",
            "a/1.wav",
            "a/deep/x.ogg",
            "cover.jpg",
            "a/notes.txt",
            ".hidden.mp3",
            ".trash/y.mp3",
        ]);
        fs::write(directory.path().join("no extension"), "fLaC\0\0\0\x22").expect("a file");
        let (songs, skipped) = found(directory.path(), Path::new("/nowhere"));
        assert_eq!(
            songs,
            ["a/1.wav", "a/2.FLAC", "a/deep/x.ogg", "b.mp3", "no extension"]
        );
        assert_eq!(skipped, 2);
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let other = directory(&["linked.wav"]);
        let directory = directory(&["song.wav"]);
        let link = |target: &Path, name: &str| symlink(target, directory.path().join(name)).expect("a link");
        link(other.path(), "album");
        link(directory.path(), "loop");
        link(Path::new("itself.wav"), "itself.wav");
        link(Path::new("/nowhere.wav"), "broken.wav");
        let (songs, skipped) = found(directory.path(), Path::new("/nowhere"));
        assert_eq!(songs, ["album/linked.wav", "song.wav"]);
        assert_eq!(skipped, 2);
    }

    #[test]
    fn stems_are_not_taken_for_songs() {
        let directory = directory(&["song.wav", "stems/song_vocals.wav"]);
        let resolved = fs::canonicalize(directory.path()).expect("a directory");
        let (songs, skipped) = found(directory.path(), &resolved.join("stems"));
        assert_eq!((songs, skipped), (vec!["song.wav".to_owned()], 0));
        let refused = search(directory.path(), &resolved).expect_err("its own output directory");
        assert!(refused.to_string().contains("for example"), "{refused}");
    }

    #[test]
    fn a_directory_without_songs_is_refused() {
        let directory = directory(&["cover.jpg"]);
        let refused = search(directory.path(), Path::new("/nowhere")).expect_err("no songs");
        assert!(
            refused
                .to_string()
                .contains("contains no songs, and 1 other files"),
            "{refused}"
        );
    }
}
