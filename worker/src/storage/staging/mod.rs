//! Where songs wait for processors and stems for uploaders: shared folders or an object store, one behaviour.
//!
//! Stems are stored under the try that made them and become visible with their manifest, so a worker that was taken
//! for dead overwrites nothing. A task's name never decides about anything but its own files.

mod folder;
mod leftovers;
mod objects;
mod sources;

use std::error::Error;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use separation_contract::message::TaskId;
use separation_contract::names;

use self::folder::FolderStore;
use self::objects::ObjectStore;
use self::sources::Sources;
use super::confine::{OpenFile, Root, WhenGone};
use super::{AttemptId, AttemptScratch, InputIdentity, S3, StagedStem, StagingManifest, StorageError};
use crate::settings::{ObjectAddress, StagingSettings};

/// Where songs wait for processors and stems for uploaders.
#[derive(Debug, Clone)]
pub struct Staging {
    sources: Sources,
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    Folder(FolderStore),
    Objects(ObjectStore),
}

/// A song that can be read as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedInput {
    /// Opens the shared file itself, or a copy of the object in scratch space.
    pub path: PathBuf,
    /// Which song it is.
    pub identity: InputIdentity,
    /// The shared file, which `path` opens as long as this is there.
    pub shared: Option<OpenFile>,
}

/// The stems as a processor made them.
#[derive(Debug, Clone, Copy)]
pub struct StemFiles<'a> {
    /// The vocals.
    pub vocals: &'a Path,
    /// The instrumental.
    pub instrumental: &'a Path,
}

/// Stems that are stored and that nobody sees yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nobody finds the stems until their manifest is shown"]
pub struct Stored {
    manifest: StagingManifest,
}

/// A stem that a result names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StemSource {
    /// A file below the folder of stems.
    File {
        /// The file, open.
        file: OpenFile,
        /// Its bytes.
        size: u64,
    },
    /// An object in a bucket that may be read.
    Object {
        /// Where it is.
        address: ObjectAddress,
        /// Its bytes.
        size: u64,
    },
}

impl Stored {
    /// What the result says about these stems.
    pub fn manifest(&self) -> &StagingManifest {
        &self.manifest
    }
}

impl StemSource {
    /// The stem's bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } | Self::Object { size, .. } => *size,
        }
    }
}

impl Staging {
    /// The staging that `settings` ask for. Folders are created where they are missing, and cleared of what processes
    /// that were killed left there more than a day ago.
    ///
    /// # Errors
    /// When a folder cannot be made, or objects are asked for and `s3` is none.
    pub async fn open(settings: &StagingSettings, s3: Option<S3>) -> Result<Self, StorageError> {
        let when_gone = match settings.s3_staging {
            None => WhenGone::MayReturn,
            Some(_) => WhenGone::NotUsed,
        };
        let inputs = Root::new("TEMP_DIR", &settings.temp_dir, when_gone)?;
        let stems = Root::new("OUTPUT_DIR", &settings.output_dir, when_gone)?;
        let store = match &settings.s3_staging {
            None => {
                for root in [&inputs, &stems] {
                    let path = root.path();
                    tokio::fs::create_dir_all(path)
                        .await
                        .map_err(StorageError::file("create", path))?;
                }
                let store = FolderStore::new(inputs.clone(), stems.clone());
                store.sweep();
                Store::Folder(store)
            }
            Some(prefix) => {
                let s3 = s3.clone().ok_or_else(|| StorageError::NoObjectStore {
                    place: prefix.to_string(),
                })?;
                Store::Objects(ObjectStore::new(s3, prefix.clone()))
            }
        };
        let sources = Sources::new(inputs, stems, settings, s3);
        Ok(Self { sources, store })
    }

    /// Which song lies at `audio_path`; none when there is nothing.
    ///
    /// # Errors
    /// When the path may not be read, or the place cannot be asked.
    pub async fn input(&self, audio_path: &str) -> Result<Option<InputIdentity>, StorageError> {
        match self.sources.input(audio_path).await {
            Ok(input) => Ok(Some(input)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the song at `audio_path` readable as a file: a shared one where it is, an object as a copy in `scratch`.
    ///
    /// # Errors
    /// When it is not there, may not be read, or is larger than the scratch space.
    pub async fn stage_in(
        &self,
        audio_path: &str,
        scratch: &AttemptScratch,
    ) -> Result<StagedInput, StorageError> {
        self.sources.stage_in(audio_path, scratch).await
    }

    /// Stores a song of at most `limit_bytes` for `task` and gives its `audio_path`. It appears when it is whole.
    ///
    /// # Errors
    /// When the stream breaks off (`Stream`) or is longer (`TooLarge`), or the place fails; then nothing appears.
    pub async fn put_input<E>(
        &self,
        task: &TaskId,
        stream: impl Stream<Item = Result<Bytes, E>> + Send,
        limit_bytes: u64,
    ) -> Result<String, StorageError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        match &self.store {
            Store::Folder(store) => store.put_input(task, stream, limit_bytes).await,
            Store::Objects(store) => store.put_input(task, stream, limit_bytes).await,
        }
    }

    /// Deletes the input of `task` if its name is `<task>_input.wav`, as the API stores it: a shared file, or an object
    /// below the staging prefix. Any other input stays, because another task may name it too. Returns whether the
    /// input is deleted.
    ///
    /// # Errors
    /// When the path may not be used or the storage fails; an input that does not exist is no error.
    pub async fn delete_input(&self, task: &TaskId, audio_path: &str) -> Result<bool, StorageError> {
        if let Ok(address) = audio_path.parse::<ObjectAddress>() {
            return match &self.store {
                Store::Objects(store) if store.is_input_of(task, &address) => {
                    store.delete(&address).await.map(|()| true)
                }
                _ => Ok(false),
            };
        }
        let name = Path::new(audio_path).file_name();
        if name.is_none_or(|name| *name != *names::input_name(task)) {
            return Ok(false);
        }
        self.sources.delete_input_file(audio_path).await.map(|()| true)
    }

    /// Keeps what the API knows of a task beside its song: a few hundred bytes, replaced by the next.
    ///
    /// # Errors
    /// When the place fails; then the one before is still there.
    pub async fn put_record(&self, task: &TaskId, record: &[u8]) -> Result<(), StorageError> {
        match &self.store {
            Store::Folder(store) => store.put_record(task, record).await,
            Store::Objects(store) => store.put_record(task, record).await,
        }
    }

    /// What the API kept of a task, if it did.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn record(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        match &self.store {
            Store::Folder(store) => store.record(task).await,
            Store::Objects(store) => store.record(task).await,
        }
    }

    /// Removes what the API kept of a task.
    ///
    /// # Errors
    /// When the place fails; what is gone is no error.
    pub async fn delete_record(&self, task: &TaskId) -> Result<(), StorageError> {
        match &self.store {
            Store::Folder(store) => store.delete_record(task).await,
            Store::Objects(store) => store.delete_record(task).await,
        }
    }

    /// Stores a task's stems under `attempt`; nobody sees them before [`show`](Self::show). Can be done again after
    /// a failure.
    ///
    /// # Errors
    /// When a stem cannot be read or written.
    pub async fn store(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        stems: StemFiles<'_>,
        input: &InputIdentity,
        model: &str,
    ) -> Result<Stored, StorageError> {
        let [vocals, instrumental]: [StagedStem; 2] = match &self.store {
            Store::Folder(store) => store.store(task, attempt, stems).await?,
            Store::Objects(store) => store.store(task, attempt, stems).await?,
        };
        let manifest = StagingManifest::new(task, attempt, input.clone(), model, vocals, instrumental);
        Ok(Stored { manifest })
    }

    /// Shows stored stems by writing their manifest, in place of any other attempt's. The caller confirms its claim
    /// right before.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub async fn show(&self, stored: &Stored) -> Result<(), StorageError> {
        match &self.store {
            Store::Folder(store) => store.show(&stored.manifest).await,
            Store::Objects(store) => store.show(&stored.manifest).await,
        }
    }

    /// A task's manifest, if there is one and both stems that it names are there with their sizes.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn find(&self, task: &TaskId) -> Result<Option<StagingManifest>, StorageError> {
        let manifest = match &self.store {
            Store::Folder(store) => store.manifest(task).await?,
            Store::Objects(store) => store.manifest(task).await?,
        };
        let Some(manifest) = manifest.and_then(|bytes| StagingManifest::read(task, &bytes)) else {
            return Ok(None);
        };
        for named in [&manifest.vocals, &manifest.instrumental] {
            match self.stem(&named.path).await {
                Ok(stem) if stem.size() == named.size => {}
                Ok(_) | Err(StorageError::Missing { .. } | StorageError::Refused { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(manifest))
    }

    /// Removes what `attempt` stored and did not show.
    ///
    /// # Errors
    /// When the place fails; what is gone is no error.
    pub async fn discard_attempt(&self, task: &TaskId, attempt: AttemptId) -> Result<(), StorageError> {
        match &self.store {
            Store::Folder(store) => store.discard_attempt(task, attempt).await,
            Store::Objects(store) => store.discard_attempt(task, attempt).await,
        }
    }

    /// Removes a task's manifest and then the stems of all its attempts, so that a manifest never names what is gone;
    /// and what the API kept of it.
    ///
    /// # Errors
    /// When the place fails; what is gone is no error, and doing it again goes on where it stopped.
    pub async fn remove(&self, task: &TaskId) -> Result<(), StorageError> {
        match &self.store {
            Store::Folder(store) => store.remove(task).await?,
            Store::Objects(store) => store.remove(task).await?,
        }
        self.delete_record(task).await
    }

    /// A stem that a result names, whoever made it: a file below the folder of stems, or an object in an allowed bucket.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub async fn stem(&self, path: &str) -> Result<StemSource, StorageError> {
        self.sources.stem(path).await
    }

    /// Removes a stem that another make of processor left for `task`: a file below the folder of stems whose name
    /// begins with the task's. Anything else stays.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove_foreign_stem(&self, task: &TaskId, path: &str) -> Result<(), StorageError> {
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        if ObjectAddress::is_one(path) || !name.is_some_and(|name| name.starts_with(&format!("{task}_"))) {
            return Ok(());
        }
        self.sources.delete_stem_file(path).await
    }
}
