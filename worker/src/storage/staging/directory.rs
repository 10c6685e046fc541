//! Staging in shared directories.
//!
//! A file is written under another name, synced and renamed, and its directory synced: a file under its final name is
//! complete, even after a crash of the machine. uvr5-api may use the same directories, so only files with our names are
//! removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, pin_mut};
use separation_contract::message::TaskId;
use separation_contract::names;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::file_names::{MANIFEST, part_name};
use super::store::{Content, StagedFile, Store};
use super::sweep::{remove_inputs, sweep};
use crate::storage::blocking::{blocking, in_background};
use crate::storage::manifest::{MAX_BYTES, StagedStem};
use crate::storage::{AttemptId, StorageError};

/// Buffer of a copy.
const COPY_BYTES: usize = 1 << 20;

/// Staging in shared directories.
#[derive(Debug)]
pub(super) struct DirectoryStore {
    inputs: PathBuf,
    stems: PathBuf,
}

impl DirectoryStore {
    /// Creates missing directories. Removes files of killed processes in the background, because a large directory
    /// takes long.
    pub(super) async fn open(inputs: PathBuf, stems: PathBuf) -> Result<Self, StorageError> {
        for path in [&inputs, &stems] {
            let created = tokio::fs::create_dir_all(path).await;
            created.map_err(StorageError::file("create", path))?;
        }
        let store = Self { inputs, stems };
        let (songs, stems) = (store.inputs.clone(), store.stems.clone());
        tokio::task::spawn_blocking(move || sweep(&songs, &stems, SystemTime::now()));
        Ok(store)
    }

    fn path(&self, task: &TaskId, file: StagedFile) -> PathBuf {
        match file {
            StagedFile::Input => self.inputs.join(names::input_name(task)),
            StagedFile::Record => self.inputs.join(names::record_name(task)),
            StagedFile::Manifest => self.task_directory(task).join(MANIFEST),
        }
    }

    fn task_directory(&self, task: &TaskId) -> PathBuf {
        self.stems.join(task.as_str())
    }

    /// Removes files of a task's directory, if it exists, and the directory if it is empty then.
    async fn remove_from(
        &self,
        task: &TaskId,
        remove: impl FnOnce(&Path) -> Result<(), StorageError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let directory = self.task_directory(task);
        blocking(move || {
            if !real_directory(&directory)? {
                return Ok(());
            }
            remove(&directory)?;
            remove_if_empty(&directory)
        })
        .await
    }
}

#[async_trait]
impl Store for DirectoryStore {
    fn location(&self, task: &TaskId, file: StagedFile) -> Result<String, StorageError> {
        text_of(&self.path(task, file))
    }

    async fn put(
        &self,
        task: &TaskId,
        file: StagedFile,
        content: Content<'_>,
        _limit_bytes: u64,
    ) -> Result<(), StorageError> {
        let path = self.path(task, file);
        let part = PartFile::with(&path, content).await?;
        blocking(move || {
            part.rename(&path)?;
            match (file, path.parent()) {
                (StagedFile::Input | StagedFile::Manifest, Some(directory)) => sync(directory),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn read(&self, task: &TaskId, file: StagedFile) -> Result<Option<Vec<u8>>, StorageError> {
        read_small(&self.path(task, file)).await
    }

    async fn delete(&self, task: &TaskId, file: StagedFile) -> Result<(), StorageError> {
        let path = self.path(task, file);
        blocking(move || remove_file(&path)).await
    }

    /// Stores a hard link on the same file system, else a copy. The source stays, so that this can be retried.
    async fn store_stem(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        name: &str,
        stem: &Path,
    ) -> Result<StagedStem, StorageError> {
        let (root, task_directory) = (self.stems.clone(), self.task_directory(task));
        let directory = task_directory.join(attempt.to_string());
        let location = directory.join(name);
        let directories = [root, task_directory, directory];
        let (made, from, to) = (directories.clone(), stem.to_owned(), location.clone());
        let linked = blocking(move || {
            create_directories(&made)?;
            look_up_stem(&from)?;
            remove_file(&to)?;
            let linked = fs::hard_link(&from, &to).is_ok();
            if linked {
                sync(&to)?;
            }
            Ok(linked)
        })
        .await?;
        if !linked {
            copy(stem, &location).await?;
        }
        blocking(move || {
            for directory in directories.iter().rev() {
                sync(directory)?;
            }
            let metadata = fs::metadata(&location).map_err(StorageError::file("look up", &location))?;
            Ok(StagedStem {
                path: text_of(&location)?,
                size: metadata.len(),
            })
        })
        .await
    }

    async fn discard_attempt(&self, task: &TaskId, attempt: AttemptId) -> Result<(), StorageError> {
        let name = attempt.to_string();
        self.remove_from(task, move |directory| remove_directory(&directory.join(name)))
            .await
    }

    async fn remove_stems(&self, task: &TaskId) -> Result<(), StorageError> {
        self.remove_from(task, |directory| {
            remove_file(&directory.join(MANIFEST))?;
            let entries = fs::read_dir(directory).map_err(StorageError::file("list", directory))?;
            for entry in entries {
                let entry = entry.map_err(StorageError::file("list", directory))?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if AttemptId::is_valid(&name) {
                    remove_directory(&entry.path())?;
                } else if name.starts_with(&format!(".{MANIFEST}.")) {
                    remove_file(&entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn remove_inputs_before(&self, time: u64) -> Result<usize, StorageError> {
        let (inputs, time) = (self.inputs.clone(), UNIX_EPOCH + Duration::from_secs(time));
        blocking(move || Ok(remove_inputs(&inputs, time))).await
    }
}

/// A synced file under a temporary name. Dropping it before the rename removes the file.
struct PartFile(PathBuf);

impl PartFile {
    /// A file with this content, beside its final `path`. After an error no file is left.
    async fn with(
        path: &Path,
        content: impl Stream<Item = Result<Bytes, StorageError>>,
    ) -> Result<Self, StorageError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = Self(path.with_file_name(part_name(&name)));
        if let Err(error) = part.write(content).await {
            // The sweep removes a file that cannot be removed now.
            let _ = part.remove().await;
            return Err(error);
        }
        Ok(part)
    }

    async fn write(
        &self,
        content: impl Stream<Item = Result<Bytes, StorageError>>,
    ) -> Result<(), StorageError> {
        let file = tokio::fs::File::create_new(&self.0).await;
        let mut file = file.map_err(StorageError::file("create", &self.0))?;
        pin_mut!(content);
        while let Some(chunk) = content.next().await {
            let written = file.write_all(&chunk?).await;
            written.map_err(StorageError::file("write", &self.0))?;
        }
        let flushed = file.flush().await;
        flushed.map_err(StorageError::file("write", &self.0))?;
        file.sync_all().await.map_err(StorageError::file("sync", &self.0))
    }

    fn rename(mut self, path: &Path) -> Result<(), StorageError> {
        fs::rename(&self.0, path).map_err(StorageError::file("rename", &self.0))?;
        self.0 = PathBuf::new();
        Ok(())
    }

    /// Removes the file and waits for the removal.
    async fn remove(mut self) -> Result<(), StorageError> {
        let path = std::mem::take(&mut self.0);
        blocking(move || remove_file(&path)).await
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        if path.as_os_str().is_empty() {
            return;
        }
        in_background(move || {
            let _ = fs::remove_file(path);
        });
    }
}

/// Copies a stem in pieces, so that a canceled attempt stops copying.
async fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let source = tokio::fs::File::open(from).await;
    let source = source.map_err(StorageError::scratch("open", from))?;
    let content = ReaderStream::with_capacity(source, COPY_BYTES);
    let content = content.map_err(|error| StorageError::scratch("read", from)(error));
    let part = PartFile::with(to, content).await?;
    let to = to.to_owned();
    blocking(move || part.rename(&to)).await
}

/// Reads a file; none if it does not exist or is larger than [`MAX_BYTES`].
async fn read_small(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match tokio::fs::File::open(path).await {
        Err(error) if is_absent(&error) => return Ok(None),
        opened => opened.map_err(StorageError::file("open", path))?,
    };
    let mut content = Vec::new();
    let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content).await;
    read.map_err(StorageError::file("read", path))?;
    Ok(Some(content).filter(|content| content.len() <= MAX_BYTES))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Syncs a file, or a directory, so that new names in it survive a crash of the machine.
fn sync(path: &Path) -> Result<(), StorageError> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(StorageError::file("sync", path))
}

/// Fails if a processor's stem does not exist.
fn look_up_stem(stem: &Path) -> Result<(), StorageError> {
    match fs::metadata(stem) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StorageError::missing(&stem.display())),
        Err(error) => Err(StorageError::scratch("look up", stem)(error)),
    }
}

/// Creates the root and the directories of a task and an attempt. A symbolic link in place of the last two is refused.
fn create_directories([root, task, attempt]: &[PathBuf; 3]) -> Result<(), StorageError> {
    fs::create_dir_all(root).map_err(StorageError::file("create", root))?;
    for directory in [task, attempt] {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StorageError::file("create", directory)(error));
            }
            _ => real_directory(directory)?,
        };
    }
    Ok(())
}

/// Whether a directory exists; a link or a file in its place is refused.
fn real_directory(path: &Path) -> Result<bool, StorageError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => {
            let rule = "it must be a directory, not a symbolic link";
            Err(StorageError::refused(&path.display(), rule))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::file("look up", path)(error)),
    }
}

fn remove_file(path: &Path) -> Result<(), StorageError> {
    unless_missing(fs::remove_file(path)).map_err(StorageError::file("delete", path))
}

fn remove_directory(path: &Path) -> Result<(), StorageError> {
    unless_missing(fs::remove_dir_all(path)).map_err(StorageError::file("delete", path))
}

/// Removes a directory unless it contains files of another program.
fn remove_if_empty(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => unless_missing(removed).map_err(StorageError::file("delete", path)),
    }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A path as UTF-8, for messages.
fn text_of(path: &Path) -> Result<String, StorageError> {
    let invalid = || StorageError::refused(&path.display(), "paths in messages must be valid UTF-8");
    path.to_str().map(str::to_owned).ok_or_else(invalid)
}
