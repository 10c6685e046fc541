//! Staging in shared directories.
//!
//! A file is written under another name, synced and renamed, and its directory synced: a file under its final name is
//! complete, even after a crash of the machine. uvr5-api may use the same directories, so only files with our names are
//! removed.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, pin_mut};
use separation_contract::message::TaskId;
use separation_contract::names;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::file_names::{MANIFEST, part_name};
use super::files::StemFiles;
use super::sweep::sweep;
use crate::storage::blocking::{blocking, in_background};
use crate::storage::confine::Root;
use crate::storage::manifest::{MAX_BYTES, StagedStem, StagingManifest};
use crate::storage::{AttemptId, StorageError};

/// Buffer of a copy.
const COPY_BYTES: usize = 1 << 20;

/// Staging in shared directories.
#[derive(Debug, Clone)]
pub(super) struct DirectoryStore {
    inputs: Root,
    stems: Root,
}

impl DirectoryStore {
    pub(super) fn new(inputs: Root, stems: Root) -> Self {
        Self { inputs, stems }
    }

    /// Removes files of killed processes in the background, because a large directory takes long.
    pub(super) fn sweep(&self) {
        let (songs, stems) = (self.inputs.path().to_owned(), self.stems.path().to_owned());
        tokio::task::spawn_blocking(move || sweep(&songs, &stems, SystemTime::now()));
    }

    pub(super) async fn put_input<E>(
        &self,
        task: &TaskId,
        stream: impl Stream<Item = Result<Bytes, E>> + Send,
        limit_bytes: u64,
    ) -> Result<String, StorageError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let path = self.inputs.path().join(names::input_name(task));
        let part = PartFile::beside(&path);
        if let Err(error) = write_stream(&part.0, &path, stream, limit_bytes).await {
            part.remove().await?;
            return Err(error);
        }
        let audio_path = text_of(&path)?;
        let directory = self.inputs.path().to_owned();
        blocking(move || {
            part.rename(&path)?;
            sync_directory(&directory)
        })
        .await?;
        Ok(audio_path)
    }

    pub(super) async fn put_record(&self, task: &TaskId, record: &[u8]) -> Result<(), StorageError> {
        let path = self.record_path(task);
        let part = PartFile::beside(&path);
        let mut file = create(&part.0).await?;
        let written = file.write_all(record).await;
        written.map_err(StorageError::file("write", &part.0))?;
        sync(file, &part.0).await?;
        blocking(move || part.rename(&path)).await
    }

    pub(super) async fn record(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        read_small(&self.record_path(task)).await
    }

    pub(super) async fn delete_record(&self, task: &TaskId) -> Result<(), StorageError> {
        let path = self.record_path(task);
        blocking(move || remove_file(&path)).await
    }

    fn record_path(&self, task: &TaskId) -> PathBuf {
        self.inputs.path().join(names::record_name(task))
    }

    pub(super) async fn store(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        stems: StemFiles<'_>,
    ) -> Result<[StagedStem; 2], StorageError> {
        let task_directory = self.task_directory(task);
        let directory = task_directory.join(attempt.to_string());
        let (root, made) = (self.stems.clone(), directory.clone());
        blocking(move || {
            // Refuse a symbolic link in place of the task's directory.
            fs::create_dir_all(root.path()).map_err(StorageError::file("create", root.path()))?;
            for directory in [made.parent().unwrap_or(&made), &made] {
                match fs::create_dir(directory) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(StorageError::file("create", directory)(error));
                    }
                    _ => real_directory(directory)?,
                };
            }
            Ok(())
        })
        .await?;
        let locations =
            [names::vocals_key(task), names::instrumental_key(task)].map(|name| directory.join(name));
        // Concurrently: a disk syncs two files in little more time than one.
        let (vocals, instrumental) = tokio::try_join!(
            store_file(stems.vocals, &locations[0]),
            store_file(stems.instrumental, &locations[1])
        )?;
        let root = self.stems.path().to_owned();
        blocking(move || {
            [&directory, &task_directory, &root]
                .into_iter()
                .try_for_each(|directory| sync_directory(directory))
        })
        .await?;
        Ok([vocals, instrumental])
    }

    pub(super) async fn publish_manifest(&self, manifest: &StagingManifest) -> Result<(), StorageError> {
        let directory = self.task_directory(&manifest.task_uuid);
        let path = directory.join(MANIFEST);
        let part = PartFile::beside(&path);
        let mut file = create(&part.0).await?;
        let written = file.write_all(&manifest.to_json()).await;
        written.map_err(StorageError::file("write", &part.0))?;
        sync(file, &part.0).await?;
        blocking(move || {
            part.rename(&path)?;
            sync_directory(&directory)
        })
        .await
    }

    /// The manifest's bytes; none if it does not exist or is larger than [`MAX_BYTES`].
    pub(super) async fn manifest(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        read_small(&self.task_directory(task).join(MANIFEST)).await
    }

    pub(super) async fn discard_attempt(
        &self,
        task: &TaskId,
        attempt: AttemptId,
    ) -> Result<(), StorageError> {
        let task_directory = self.task_directory(task);
        blocking(move || {
            if !real_directory(&task_directory)? {
                return Ok(());
            }
            remove_directory(&task_directory.join(attempt.to_string()))?;
            remove_if_empty(&task_directory)
        })
        .await
    }

    pub(super) async fn remove(&self, task: &TaskId) -> Result<(), StorageError> {
        let task_directory = self.task_directory(task);
        blocking(move || {
            if !real_directory(&task_directory)? {
                return Ok(());
            }
            remove_file(&task_directory.join(MANIFEST))?;
            let entries =
                fs::read_dir(&task_directory).map_err(StorageError::file("list", &task_directory))?;
            for entry in entries {
                let entry = entry.map_err(StorageError::file("list", &task_directory))?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if AttemptId::is_valid(&name) {
                    remove_directory(&entry.path())?;
                } else if name.starts_with(&format!(".{MANIFEST}.")) {
                    remove_file(&entry.path())?;
                }
            }
            remove_if_empty(&task_directory)
        })
        .await
    }

    fn task_directory(&self, task: &TaskId) -> PathBuf {
        self.stems.path().join(task.as_str())
    }
}

/// An incomplete file under a temporary name. Dropping it before the rename removes the file.
struct PartFile(PathBuf);

impl PartFile {
    fn beside(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self(path.with_file_name(part_name(&name)))
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

/// Writes a stream of at most `limit_bytes` to the file `part`; `path`, its final path, is used in errors.
async fn write_stream<E>(
    part: &Path,
    path: &Path,
    stream: impl Stream<Item = Result<Bytes, E>>,
    limit_bytes: u64,
) -> Result<(), StorageError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut file = create(part).await?;
    let mut total = 0;
    pin_mut!(stream);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| StorageError::Stream(error.into()))?;
        total += chunk.len() as u64;
        if total > limit_bytes {
            return Err(StorageError::TooLarge {
                location: path.display().to_string(),
                limit_bytes,
            });
        }
        file.write_all(&chunk)
            .await
            .map_err(StorageError::file("write", part))?;
    }
    sync(file, part).await
}

/// Stores a stem at `location`: as a hard link on the same file system, else as a copy. The source stays, so that this
/// can be retried.
async fn store_file(stem: &Path, location: &Path) -> Result<StagedStem, StorageError> {
    if let Err(error) = tokio::fs::metadata(stem).await {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => StorageError::missing(&stem.display()),
            _ => StorageError::scratch("look up", stem)(error),
        });
    }
    let before = location.to_owned();
    blocking(move || remove_file(&before)).await?;
    if tokio::fs::hard_link(stem, location).await.is_ok() {
        let file = tokio::fs::File::open(location)
            .await
            .map_err(StorageError::file("open", location))?;
        file.sync_all()
            .await
            .map_err(StorageError::file("sync", location))?;
    } else {
        copy(stem, location).await?;
    }
    let metadata = tokio::fs::metadata(location)
        .await
        .map_err(StorageError::file("look up", location))?;
    Ok(StagedStem {
        path: text_of(location)?,
        size: metadata.len(),
    })
}

/// Copies in pieces, so that a canceled attempt stops copying.
async fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let mut source = tokio::fs::File::open(from)
        .await
        .map_err(StorageError::scratch("open", from))?;
    let part = PartFile::beside(to);
    let mut file = create(&part.0).await?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = source
            .read(&mut buffer)
            .await
            .map_err(StorageError::scratch("read", from))?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count])
            .await
            .map_err(StorageError::file("write", &part.0))?;
    }
    sync(file, &part.0).await?;
    let to = to.to_owned();
    blocking(move || part.rename(&to)).await
}

/// Reads a file; none if it does not exist or is larger than [`MAX_BYTES`].
async fn read_small(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match tokio::fs::File::open(path).await {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        opened => opened.map_err(StorageError::file("open", path))?,
    };
    let mut content = Vec::new();
    let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content).await;
    read.map_err(StorageError::file("read", path))?;
    Ok(Some(content).filter(|content| content.len() <= MAX_BYTES))
}

async fn create(path: &Path) -> Result<tokio::fs::File, StorageError> {
    tokio::fs::File::create_new(path)
        .await
        .map_err(StorageError::file("create", path))
}

async fn sync(mut file: tokio::fs::File, path: &Path) -> Result<(), StorageError> {
    file.flush().await.map_err(StorageError::file("write", path))?;
    file.sync_all().await.map_err(StorageError::file("sync", path))
}

/// Syncs a directory, so that new names in it survive a crash of the machine.
fn sync_directory(directory: &Path) -> Result<(), StorageError> {
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(StorageError::file("sync", directory))
}

/// Whether a directory exists; a link or a file in its place is refused.
fn real_directory(path: &Path) -> Result<bool, StorageError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(StorageError::Refused {
            location: path.display().to_string(),
            rule: "it must be a directory, not a symbolic link".into(),
        }),
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
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| StorageError::Refused {
            location: path.display().to_string(),
            rule: "paths in messages must be valid UTF-8".into(),
        })
}
