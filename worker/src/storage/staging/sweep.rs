//! Removes files that killed processes left in the shared directories (incomplete files and unpublished stems) and songs
//! past their retention.
//!
//! uvr5-api may use the same directories, so only files with names that no other program uses are removed, and only
//! when they are older than any task.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use separation_contract::names;

use super::file_names::{MANIFEST, is_part_name, task_of_input};
use crate::storage::AttemptId;

/// Longer than receiving a song or running a task can take.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes leftover files that are old at `now` from the directories of songs and of stems; returns how many. Failures
/// are only logged: leftover files cost space, not correctness. Blocks, for long on a large directory.
pub(super) fn sweep(songs: &Path, stems: &Path, now: SystemTime) -> usize {
    let mut removed = remove_parts(songs, now);
    for (path, name) in entries(stems) {
        if name.starts_with('.') || !is_directory(&path) {
            continue;
        }
        removed += remove_parts(&path, now);
        // The uploader removes the stems of a task with a manifest.
        if !path.join(MANIFEST).exists() {
            removed += remove_attempts(&path, now);
        }
    }
    removed
}

/// Deletes songs modified before `time` that have names of the API and no record: their tasks have ended. Returns how
/// many. Failures are only logged. Blocks, for long on a large directory.
pub(super) fn remove_inputs(songs: &Path, time: SystemTime) -> usize {
    let is_old = |path: &Path| {
        let file = path.symlink_metadata().ok().filter(fs::Metadata::is_file);
        file.and_then(|file| file.modified().ok())
            .is_some_and(|modified| modified < time)
    };
    // A record that cannot be looked up counts as existing.
    let has_ended = |name: &str| {
        let record = task_of_input(name).map(|task| songs.join(names::record_name(&task)));
        record.is_some_and(|record| record.try_exists().is_ok_and(|exists| !exists))
    };
    let mut count = 0;
    for (path, name) in entries(songs) {
        if !has_ended(&name) || !is_old(&path) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => count += 1,
            Err(error) => tracing::warn!(location = %path.display(), %error, "Cannot delete an old song"),
        }
    }
    count
}

fn remove_parts(directory: &Path, now: SystemTime) -> usize {
    let parts = entries(directory).filter(|(path, name)| is_part_name(name) && is_old(path, now));
    parts
        .filter(|(path, _)| removed(path, fs::remove_file(path)))
        .count()
}

fn remove_attempts(task_directory: &Path, now: SystemTime) -> usize {
    let attempts = entries(task_directory)
        .filter(|(path, name)| AttemptId::is_valid(name) && is_directory(path) && is_old(path, now));
    let count = attempts
        .filter(|(path, _)| removed(path, fs::remove_dir_all(path)))
        .count();
    if count > 0 {
        // Fails if it contains files of another program.
        let _ = fs::remove_dir(task_directory);
    }
    count
}

fn entries(directory: &Path) -> impl Iterator<Item = (std::path::PathBuf, String)> {
    let entries = fs::read_dir(directory).ok();
    entries.into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.path(), entry.file_name().to_str()?.to_owned()))
    })
}

/// Whether it is a directory, not a link to one.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// A file whose age cannot be read counts as new.
fn is_old(path: &Path, now: SystemTime) -> bool {
    let changed = path.symlink_metadata().and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > OLD))
}

fn removed(path: &Path, result: std::io::Result<()>) -> bool {
    match result {
        Ok(()) => {
            tracing::info!(location = %path.display(), "Removed a leftover file of a killed process");
            true
        }
        Err(error) => {
            tracing::debug!(location = %path.display(), %error, "Cannot remove a leftover file");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_names::part_name;
    use super::*;

    /// Every path below `directory`, relative to it.
    fn all(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![directory.to_owned()];
        while let Some(next) = pending.pop() {
            for (path, _) in entries(&next) {
                if is_directory(&path) {
                    pending.push(path.clone());
                }
                found.push(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn only_old_files_with_our_names_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let attempt = AttemptId::new().to_string();
        let song = part_name("t1_input.wav");
        let record = part_name("t1_task.json");
        let manifest = part_name(MANIFEST);
        let leftovers = [
            format!("songs/{song}"),
            format!("songs/{record}"),
            format!("stems/t1/{manifest}"),
            format!("stems/t1/{attempt}/t1_vocals.wav"),
        ];
        let others = [
            "songs/t1_input.wav".to_owned(),
            "songs/.part".to_owned(),
            "songs/.a.part".to_owned(),
            format!("songs/t1_input.wav.{attempt}.part"),
            "stems/t1_vocals.wav".to_owned(),
            "stems/t2/notes".to_owned(),
            "stems/t3/manifest.json".to_owned(),
            format!("stems/t3/{attempt}/t3_vocals.wav"),
        ];
        for file in leftovers.iter().chain(&others) {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), file).unwrap();
        }
        let before = all(directory.path());
        let now = SystemTime::now();
        assert_eq!(sweep(&at("songs"), &at("stems"), now), 0);
        assert_eq!(all(directory.path()), before, "new files stay");
        let tomorrow = now + OLD + Duration::from_secs(60);
        assert_eq!(sweep(&at("songs"), &at("stems"), tomorrow), 4);
        let left = all(directory.path());
        for file in &leftovers {
            assert!(!left.contains(file), "{file}");
        }
        for file in &others {
            assert!(left.contains(file), "{file}");
        }
        assert!(
            !at("stems/t1").exists(),
            "an empty directory of ours is removed too"
        );
        assert_eq!(
            sweep(&at("songs"), &at("stems"), tomorrow),
            0,
            "a second sweep finds nothing"
        );
        assert_eq!(sweep(&at("none"), &at("none"), tomorrow), 0);
    }

    #[test]
    fn only_old_songs_of_ended_tasks_with_names_of_the_api_are_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for song in [
            "t1_input.wav",
            "a_b_input.wav",
            "t2_input.wav",
            "t2_task.json",
            "song.wav",
            "_input.wav",
        ] {
            fs::write(at(song), song).unwrap();
        }
        fs::create_dir(at("d_input.wav")).unwrap();
        std::os::unix::fs::symlink(at("song.wav"), at("link_input.wav")).unwrap();
        let now = SystemTime::now();
        assert_eq!(remove_inputs(directory.path(), now - OLD), 0, "new songs stay");
        assert_eq!(remove_inputs(directory.path(), now + OLD), 2);
        let left = [
            "_input.wav",
            "d_input.wav",
            "link_input.wav",
            "song.wav",
            "t2_input.wav",
            "t2_task.json",
        ];
        assert_eq!(all(directory.path()), left);
    }
}
