//! What killed processes left in the shared folders: files that were not complete, and stems that nobody saw.
//!
//! Other makes of workers use the same folders, so only what has a name that nobody else gives is removed, and only
//! when it is older than any task.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::folder::MANIFEST;
use crate::storage::AttemptId;

/// Older than any song that is still being received and any task that still runs.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// The end of the name of a file that is not complete.
const PART: &str = ".part";

/// The name of a file until it is complete; never used twice, so two who write one file do not meet.
pub(super) fn part_name(name: &str) -> String {
    format!(".{name}.{}{PART}", AttemptId::new())
}

/// Whether a file's name is one of [`part_name`]'s.
fn is_part_name(name: &str) -> bool {
    let whole = name.strip_prefix('.').and_then(|name| name.strip_suffix(PART));
    whole
        .and_then(|whole| whole.rsplit_once('.'))
        .is_some_and(|(name, attempt)| !name.is_empty() && AttemptId::is_one(attempt))
}

/// Removes what is left and old at `now` in the folders of songs and of stems; gives how much. Failures are logged:
/// leftovers cost space, not correctness. Blocks, on a large folder for long.
pub(super) fn sweep(songs: &Path, stems: &Path, now: SystemTime) -> usize {
    let mut removed = remove_parts(songs, now);
    for (path, name) in entries(stems) {
        if name.starts_with('.') || !is_folder(&path) {
            continue;
        }
        removed += remove_parts(&path, now);
        // Stems of a task with a manifest are removed by the uploader, whose manifest names them.
        if !path.join(MANIFEST).exists() {
            removed += remove_attempts(&path, now);
        }
    }
    removed
}

fn remove_parts(folder: &Path, now: SystemTime) -> usize {
    let parts = entries(folder).filter(|(path, name)| is_part_name(name) && is_old(path, now));
    parts
        .filter(|(path, _)| removed(path, fs::remove_file(path)))
        .count()
}

fn remove_attempts(task_folder: &Path, now: SystemTime) -> usize {
    let attempts = entries(task_folder)
        .filter(|(path, name)| AttemptId::is_one(name) && is_folder(path) && is_old(path, now));
    let count = attempts
        .filter(|(path, _)| removed(path, fs::remove_dir_all(path)))
        .count();
    if count > 0 {
        // Stays if somebody else's files are in it.
        let _ = fs::remove_dir(task_folder);
    }
    count
}

fn entries(folder: &Path) -> impl Iterator<Item = (std::path::PathBuf, String)> {
    let entries = fs::read_dir(folder).ok();
    entries.into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.path(), entry.file_name().to_str()?.to_owned()))
    })
}

/// Whether it is a folder, and no link to one.
fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// What cannot be told counts as new.
fn is_old(path: &Path, now: SystemTime) -> bool {
    let changed = path.symlink_metadata().and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > OLD))
}

fn removed(path: &Path, result: std::io::Result<()>) -> bool {
    match result {
        Ok(()) => {
            tracing::info!(place = %path.display(), "Removed what a process that was killed left");
            true
        }
        Err(error) => {
            tracing::debug!(place = %path.display(), %error, "A leftover could not be removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path below a folder, relative to it.
    fn all(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(next) = waiting.pop() {
            for (path, _) in entries(&next) {
                if is_folder(&path) {
                    waiting.push(path.clone());
                }
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn only_what_is_old_and_ours_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
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
        let before = all(folder.path());
        let now = SystemTime::now();
        assert_eq!(sweep(&at("songs"), &at("stems"), now), 0);
        assert_eq!(all(folder.path()), before, "new files stay");
        let tomorrow = now + OLD + Duration::from_secs(60);
        assert_eq!(sweep(&at("songs"), &at("stems"), tomorrow), 4);
        let left = all(folder.path());
        for file in &leftovers {
            assert!(!left.contains(file), "{file}");
        }
        for file in &others {
            assert!(left.contains(file), "{file}");
        }
        assert!(!at("stems/t1").exists(), "an empty folder of ours goes too");
        assert_eq!(
            sweep(&at("songs"), &at("stems"), tomorrow),
            0,
            "the second time finds nothing"
        );
        assert_eq!(sweep(&at("none"), &at("none"), tomorrow), 0);
    }
}
