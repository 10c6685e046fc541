//! A worker's own files while it works: a folder for each try, gone when the try ends, however it ends.
//!
//! What a killed process left is removed by the next one that starts, and by no other sign than that its lock is free.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::blocking::{blocking, in_background};
use super::{AttemptId, StorageError};

/// The folder below `SCRATCH_DIR` that nothing but workers uses.
const FOLDER: &str = "separation-worker";

/// The lock that processes hold while they begin or sweep; without it a sweep could meet a folder not yet locked.
const SWEEP_LOCK: &str = "sweep.lock";

/// How long to wait for another process's sweep. Past it, this process starts without one.
const SWEEP_WAIT: Duration = Duration::from_secs(30);

/// How often the lock is tried meanwhile.
const SWEEP_POLL: Duration = Duration::from_millis(20);

/// A process's scratch space; clones share it, and the last one removes it.
#[derive(Debug, Clone)]
pub struct Scratch {
    process: Arc<Process>,
    limit_bytes: u64,
}

/// A try's folder. Removed with all it holds when this is dropped.
#[derive(Debug)]
pub struct AttemptScratch {
    path: PathBuf,
    limit_bytes: u64,
    /// The process's folder outlives it.
    process: Arc<Process>,
}

/// A process's folder, and the lock that says that the process lives.
#[derive(Debug)]
struct Process {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Begins a process's scratch space below `directory`, by default the system's folder for temporary files, and
    /// removes what processes that no longer run left there. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn open(directory: Option<&Path>, limit_bytes: u64) -> Result<Self, StorageError> {
        let base = directory
            .map_or_else(std::env::temp_dir, Path::to_owned)
            .join(FOLDER);
        fs::create_dir_all(&base).map_err(StorageError::scratch("create", &base))?;
        let sweeping = lock_within(&base.join(SWEEP_LOCK), SWEEP_WAIT)?;
        let process = Process::begin(&base)?;
        if sweeping.is_some() {
            process.sweep_others(&base);
        } else {
            tracing::warn!(folder = %base.display(), "Another process sweeps the scratch folder; starting without");
        }
        Ok(Self {
            process: Arc::new(process),
            limit_bytes,
        })
    }

    /// Makes the folder of a try.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn begin(&self, attempt: AttemptId) -> Result<AttemptScratch, StorageError> {
        let path = self.process.folder.join(attempt.to_string());
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
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many more bytes the try may have here.
    ///
    /// # Errors
    /// `TooLarge` when it has more than it may already.
    pub async fn remaining_bytes(&self) -> Result<u64, StorageError> {
        let used = self.used_bytes().await?;
        self.limit_bytes
            .checked_sub(used)
            .ok_or_else(|| StorageError::TooLarge {
                place: format!("the scratch folder {}", self.path.display()),
                limit_bytes: self.limit_bytes,
            })
    }

    /// Whether what the try has here, or the `needed` bytes that it would have, fill most of the disk, so that the disk is
    /// too small for its song. If not, other files fill the disk.
    ///
    /// # Errors
    /// When the disk cannot be asked.
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
            remove_folder(&path);
            // The process's folder is removed after that of the try.
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
        let folder = base.join(name);
        fs::create_dir(&folder).map_err(StorageError::scratch("create", &folder))?;
        Ok(Self {
            folder,
            lock_path,
            _lock: lock,
        })
    }

    /// Removes what others left whose lock is free. Failures are logged: leftovers cost space, not correctness.
    fn sweep_others(&self, base: &Path) {
        let entries = match fs::read_dir(base) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(folder = %base.display(), %error, "The scratch folder cannot be swept");
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
                let folder = path.with_extension("");
                if !folder.exists() {
                    // Only once its folder is gone.
                    let _ = fs::remove_file(&path);
                }
            } else {
                remove_folder(&path);
                if !path.exists() {
                    let _ = fs::remove_file(&lock_path);
                    tracing::info!(folder = %path.display(), "Removed what a process that no longer runs left");
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        remove_folder(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Whether a process holds the lock at `path`. What cannot be told counts as held.
fn holds(path: &Path) -> bool {
    match File::open(path) {
        Ok(lock) => lock.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The lock at `path`, if it comes free within `wait`.
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

/// Removes a folder or a file, and says so when it stays.
fn remove_folder(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "Scratch files could not be removed");
        }
        _ => {}
    }
}

/// The bytes of all files below a folder. A file that goes away meanwhile counts as none.
fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
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

    /// Waits for what is done in the background.
    async fn until(holds: impl Fn() -> bool) {
        let holding = async {
            while !holds() {
                tokio::time::sleep(SWEEP_POLL).await;
            }
        };
        tokio::time::timeout(SWEEP_WAIT, holding).await.expect("in time");
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder.join(FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != SWEEP_LOCK)
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn nothing_stays_when_a_try_and_its_process_end() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(Some(folder.path()), 100).unwrap();
        let attempt = scratch.begin(AttemptId::new()).await.unwrap();
        fs::create_dir(attempt.path().join("sub")).unwrap();
        fs::write(attempt.path().join("sub/.a.wav.part"), [0; 10]).unwrap();
        let path = attempt.path().to_owned();
        drop(scratch);
        assert!(
            path.exists(),
            "the process's folder outlives the handle while a try runs"
        );
        drop(attempt);
        until(|| !path.exists() && entries(folder.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn only_what_processes_that_no_longer_run_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let alive = Scratch::open(Some(folder.path()), 100).unwrap();
        let attempt = alive.begin(AttemptId::new()).await.unwrap();
        let base = folder.path().join(FOLDER);
        // As after kill -9: a lock file that nobody holds, a folder with files, and folders that lost their lock file.
        fs::write(base.join("dead.lock"), "").unwrap();
        fs::create_dir_all(base.join("dead/attempt")).unwrap();
        fs::write(base.join("dead/attempt/.song.part"), "left").unwrap();
        fs::create_dir_all(base.join("unlocked/attempt")).unwrap();
        fs::write(base.join("alone.lock"), "").unwrap();
        let before = entries(folder.path());

        let newcomer = Scratch::open(Some(folder.path()), 100).unwrap();

        assert!(attempt.path().exists());
        let left: Vec<String> = entries(folder.path())
            .into_iter()
            .filter(|name| before.contains(name))
            .collect();
        assert_eq!(
            left.len(),
            2,
            "one folder and one lock of the process that runs: {left:?}"
        );
        drop((attempt, alive, newcomer));
        until(|| entries(folder.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn a_try_is_told_how_much_it_may_still_have() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(Some(folder.path()), 100).unwrap();
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
