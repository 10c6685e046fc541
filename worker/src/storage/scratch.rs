//! A worker's scratch space: one directory for each attempt, removed when the attempt ends, also on failure.
//!
//! The next process that starts removes the directories of killed processes, which it recognizes only by their free
//! lock.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::blocking::{blocking, in_background};
use super::{AttemptId, StorageError};

/// The directory below `SCRATCH_DIR` that only workers use.
const DIRECTORY: &str = "separation-worker";

/// Lock held while a process starts or sweeps; without it a sweep could remove a directory that is not locked yet.
const SWEEP_LOCK: &str = "sweep.lock";

/// Time limit for another process's sweep; after it this process starts without sweeping.
const SWEEP_WAIT: Duration = Duration::from_secs(30);

/// Polling interval of the lock.
const SWEEP_POLL: Duration = Duration::from_millis(20);

/// The scratch space of a process; clones share it, and dropping the last one removes it.
#[derive(Debug, Clone)]
pub struct Scratch {
    process: Arc<Process>,
    limit_bytes: u64,
}

/// The scratch directory of an attempt. Dropping it removes the directory and its contents.
#[derive(Debug)]
pub struct AttemptScratch {
    path: PathBuf,
    limit_bytes: u64,
    /// Keeps the process's directory until the attempt's is removed.
    process: Arc<Process>,
}

/// A process's directory, and the lock that it holds while it runs.
#[derive(Debug)]
struct Process {
    directory: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Creates the process's scratch space below `directory`, by default the system's directory for temporary files,
    /// and removes the files of processes that no longer run. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be created or locked.
    pub fn open(directory: Option<&Path>, limit_bytes: u64) -> Result<Self, StorageError> {
        let base = directory
            .map_or_else(std::env::temp_dir, Path::to_owned)
            .join(DIRECTORY);
        fs::create_dir_all(&base).map_err(StorageError::scratch("create", &base))?;
        let sweeping = lock_within(&base.join(SWEEP_LOCK), SWEEP_WAIT)?;
        let process = Process::begin(&base)?;
        if sweeping.is_some() {
            process.sweep_others(&base);
        } else {
            tracing::warn!(directory = %base.display(), "Another process sweeps the scratch directory; starting without");
        }
        Ok(Self {
            process: Arc::new(process),
            limit_bytes,
        })
    }

    /// Creates the directory of an attempt.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn begin(&self, attempt: AttemptId) -> Result<AttemptScratch, StorageError> {
        let path = self.process.directory.join(attempt.to_string());
        let (process, limit_bytes) = (Arc::clone(&self.process), self.limit_bytes);
        blocking(move || {
            fs::create_dir(&path).map_err(StorageError::scratch("create", &path))?;
            Ok(AttemptScratch {
                path,
                limit_bytes,
                process,
            })
        })
        .await
    }
}

impl AttemptScratch {
    /// The attempt's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes left of the attempt's limit.
    ///
    /// # Errors
    /// `TooLarge` when the limit is exceeded.
    pub async fn remaining_bytes(&self) -> Result<u64, StorageError> {
        let used = self.used_bytes().await?;
        let remaining = self.limit_bytes.checked_sub(used);
        remaining.ok_or_else(|| {
            let location = format!("the scratch directory {}", self.path.display());
            StorageError::too_large(&location, self.limit_bytes)
        })
    }

    /// Whether the attempt's files, or the `needed` bytes if larger, exceed half of the disk: then the disk is too
    /// small for the song. Otherwise other files fill the disk.
    ///
    /// # Errors
    /// When the disk cannot be measured.
    pub async fn fills_its_disk(&self, needed: u64) -> Result<bool, StorageError> {
        let (path, used) = (self.path.clone(), self.used_bytes().await?.max(needed));
        blocking(move || {
            let disk = rustix::fs::statvfs(&path);
            let disk = disk.map_err(|error| StorageError::scratch("measure", &path)(error.into()))?;
            let total = disk.f_blocks.saturating_mul(disk.f_frsize);
            Ok(used > total / 2)
        })
        .await
    }

    async fn used_bytes(&self) -> Result<u64, StorageError> {
        let path = self.path.clone();
        blocking(move || bytes_below(&path).map_err(StorageError::scratch("measure", &path))).await
    }
}

impl Drop for AttemptScratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let process = Arc::clone(&self.process);
        in_background(move || {
            remove_path(&path);
            // The process's directory is removed after the attempt's.
            drop(process);
        });
    }
}

impl Process {
    fn begin(base: &Path) -> Result<Self, StorageError> {
        let name = Uuid::new_v4().simple().to_string();
        let lock_path = base.join(format!("{name}.lock"));
        let lock = File::create_new(&lock_path).map_err(StorageError::scratch("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let taken = io::Error::from(io::ErrorKind::WouldBlock);
                return Err(StorageError::scratch("lock", &lock_path)(taken));
            }
            Err(TryLockError::Error(error)) => return Err(StorageError::scratch("lock", &lock_path)(error)),
        }
        let directory = base.join(name);
        fs::create_dir(&directory).map_err(StorageError::scratch("create", &directory))?;
        Ok(Self {
            directory,
            lock_path,
            _lock: lock,
        })
    }

    /// Removes the files of processes whose lock is free. Failures are only logged: leftover files cost space, not
    /// correctness.
    fn sweep_others(&self, base: &Path) {
        let entries = match fs::read_dir(base) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(directory = %base.display(), %error, "Cannot sweep the scratch directory");
                return;
            }
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let is_lock = path.extension().is_some_and(|ending| ending == "lock");
            let lock_path = path.with_extension("lock");
            let ours = lock_path == self.lock_path || path == base.join(SWEEP_LOCK);
            if ours || holds(&lock_path) {
                continue;
            }
            if is_lock {
                let directory = path.with_extension("");
                if !directory.exists() {
                    // Only after its directory is removed.
                    let _ = fs::remove_file(&path);
                }
            } else {
                remove_path(&path);
                if !path.exists() {
                    let _ = fs::remove_file(&lock_path);
                    tracing::info!(directory = %path.display(), "Removed scratch files of a process that no longer runs");
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        remove_path(&self.directory);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Whether a process holds the lock at `path`; an unreadable lock counts as held.
fn holds(path: &Path) -> bool {
    match File::open(path) {
        Ok(lock) => lock.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Acquires the lock at `path`; none if another process still holds it after `wait`.
fn lock_within(path: &Path, wait: Duration) -> Result<Option<File>, StorageError> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(StorageError::scratch("create", path))?;
    let give_up_at = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(StorageError::scratch("lock", path)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= give_up_at => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(SWEEP_POLL),
        }
    }
}

/// Removes a directory or a file, and logs a failure.
fn remove_path(path: &Path) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "Cannot remove scratch files");
        }
        _ => {}
    }
}

/// Total size of all files below a directory, in bytes. A file removed meanwhile counts as 0.
fn bytes_below(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until `holds` is true, for background work.
    async fn until(holds: impl Fn() -> bool) {
        let holding = async {
            while !holds() {
                tokio::time::sleep(SWEEP_POLL).await;
            }
        };
        tokio::time::timeout(SWEEP_WAIT, holding).await.expect("in time");
    }

    fn entries(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory.join(DIRECTORY))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != SWEEP_LOCK)
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn scratch_files_are_removed_when_the_attempt_and_its_process_end() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(Some(directory.path()), 100).unwrap();
        let attempt = scratch.begin(AttemptId::new()).await.unwrap();
        fs::create_dir(attempt.path().join("sub")).unwrap();
        fs::write(attempt.path().join("sub/.a.wav.part"), [0; 10]).unwrap();
        let path = attempt.path().to_owned();
        drop(scratch);
        assert!(
            path.exists(),
            "the process's directory outlives the handle while an attempt runs"
        );
        drop(attempt);
        until(|| !path.exists() && entries(directory.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn only_files_of_processes_that_no_longer_run_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let alive = Scratch::open(Some(directory.path()), 100).unwrap();
        let attempt = alive.begin(AttemptId::new()).await.unwrap();
        let base = directory.path().join(DIRECTORY);
        // As after kill -9: a lock file that no process holds, a directory with files, directories without a lock file.
        fs::write(base.join("dead.lock"), "").unwrap();
        fs::create_dir_all(base.join("dead/attempt")).unwrap();
        fs::write(base.join("dead/attempt/.song.part"), "left").unwrap();
        fs::create_dir_all(base.join("unlocked/attempt")).unwrap();
        fs::write(base.join("alone.lock"), "").unwrap();
        let before = entries(directory.path());

        let newcomer = Scratch::open(Some(directory.path()), 100).unwrap();

        assert!(attempt.path().exists());
        let left: Vec<String> = entries(directory.path())
            .into_iter()
            .filter(|name| before.contains(name))
            .collect();
        assert_eq!(
            left.len(),
            2,
            "one directory and one lock of the running process: {left:?}"
        );
        drop((attempt, alive, newcomer));
        until(|| entries(directory.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn remaining_bytes_count_all_files_of_the_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(Some(directory.path()), 100).unwrap();
        let attempt = scratch.begin(AttemptId::new()).await.unwrap();
        fs::write(attempt.path().join("a"), [0; 60]).unwrap();
        assert_eq!(attempt.remaining_bytes().await.unwrap(), 40);
        fs::create_dir(attempt.path().join("sub")).unwrap();
        fs::write(attempt.path().join("sub/b"), [0; 60]).unwrap();
        assert!(matches!(
            attempt.remaining_bytes().await,
            Err(StorageError::TooLarge { limit_bytes: 100, .. })
        ));
    }
}
