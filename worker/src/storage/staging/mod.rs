//! Staging of songs for processors and of stems for uploaders, in shared directories or an object store, with the same
//! behavior.
//!
//! Stems are stored under their attempt's ID and become visible with their manifest, so a worker that has lost its task
//! overwrites nothing. A task's ID only ever selects that task's own files.

mod directory;
mod file_names;
mod files;
mod objects;
mod sources;
mod sweep;

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use futures_util::Stream;
use separation_contract::message::TaskId;
use separation_contract::names;

pub use self::files::{StagedInput, StemFiles, StemSource, StoredStems};

use self::directory::DirectoryStore;
use self::objects::ObjectStore;
use self::sources::Sources;
use super::confine::{MissingRoot, Root};
use super::{AttemptId, AttemptScratch, InputIdentity, S3, StagedStem, StagingManifest, StorageError};
use crate::settings::{ObjectAddress, StagingSettings};

/// Staging of songs and stems; cheap to clone.
#[derive(Debug, Clone)]
pub struct Staging {
    sources: Sources,
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    Directory(DirectoryStore),
    Objects(ObjectStore),
}

impl Staging {
    /// Opens the staging of `settings`. Creates missing directories and removes files that killed processes left more
    /// than a day ago.
    ///
    /// # Errors
    /// When a directory cannot be created, or object staging is configured and `s3` is none.
    pub async fn open(settings: &StagingSettings, s3: Option<S3>) -> Result<Self, StorageError> {
        let missing_root = match settings.s3_staging {
            None => MissingRoot::Error,
            Some(_) => MissingRoot::Unused,
        };
        let inputs = Root::new("TEMP_DIR", &settings.temp_dir, missing_root)?;
        let stems = Root::new("OUTPUT_DIR", &settings.output_dir, missing_root)?;
        let store = match &settings.s3_staging {
            None => {
                for root in [&inputs, &stems] {
                    let path = root.path();
                    tokio::fs::create_dir_all(path)
                        .await
                        .map_err(StorageError::file("create", path))?;
                }
                let store = DirectoryStore::new(inputs.clone(), stems.clone());
                store.sweep();
                Store::Directory(store)
            }
            Some(prefix) => {
                let s3 = s3.clone().ok_or_else(|| StorageError::NoObjectStore {
                    location: prefix.to_string(),
                })?;
                Store::Objects(ObjectStore::new(s3, prefix.clone()))
            }
        };
        let sources = Sources::new(inputs, stems, settings, s3);
        Ok(Self { sources, store })
    }

    /// Identity of the song at `audio_path`; none if it does not exist.
    ///
    /// # Errors
    /// When the path may not be read, or the storage fails.
    pub async fn input(&self, audio_path: &str) -> Result<Option<InputIdentity>, StorageError> {
        match self.sources.input(audio_path).await {
            Ok(input) => Ok(Some(input)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the song at `audio_path` readable as a file: a shared file in place, an object as a copy in `scratch`.
    ///
    /// # Errors
    /// When it does not exist, may not be read, or is larger than the scratch space.
    pub async fn stage_in(
        &self,
        audio_path: &str,
        scratch: &AttemptScratch,
    ) -> Result<StagedInput, StorageError> {
        self.sources.stage_in(audio_path, scratch).await
    }

    /// Stores a song of at most `limit_bytes` for `task` and returns its `audio_path`. Visible only once complete.
    ///
    /// # Errors
    /// When the stream fails (`Stream`) or is longer (`TooLarge`), or the storage fails; then nothing becomes visible.
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
            Store::Directory(store) => store.put_input(task, stream, limit_bytes).await,
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

    /// Stores the API's record of a task next to its song: a few hundred bytes; replaces an earlier record.
    ///
    /// # Errors
    /// When the storage fails; then the earlier record is unchanged.
    pub async fn put_record(&self, task: &TaskId, record: &[u8]) -> Result<(), StorageError> {
        match &self.store {
            Store::Directory(store) => store.put_record(task, record).await,
            Store::Objects(store) => store.put_record(task, record).await,
        }
    }

    /// The API's record of a task; none if it does not exist.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn record(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        match &self.store {
            Store::Directory(store) => store.record(task).await,
            Store::Objects(store) => store.record(task).await,
        }
    }

    /// Deletes the API's record of a task.
    ///
    /// # Errors
    /// When the storage fails. A missing record is no error.
    pub async fn delete_record(&self, task: &TaskId) -> Result<(), StorageError> {
        match &self.store {
            Store::Directory(store) => store.delete_record(task).await,
            Store::Objects(store) => store.delete_record(task).await,
        }
    }

    /// Stores a task's stems under `attempt`; invisible until [`Self::publish_manifest`]. May be retried after a
    /// failure.
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
    ) -> Result<StoredStems, StorageError> {
        let [vocals, instrumental]: [StagedStem; 2] = match &self.store {
            Store::Directory(store) => store.store(task, attempt, stems).await?,
            Store::Objects(store) => store.store(task, attempt, stems).await?,
        };
        let manifest = StagingManifest::new(task, attempt, input.clone(), model, vocals, instrumental);
        Ok(StoredStems { manifest })
    }

    /// Publishes stored stems by writing their manifest, which replaces that of any other attempt. The caller must
    /// confirm its partition ownership immediately before.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub async fn publish_manifest(&self, stored: &StoredStems) -> Result<(), StorageError> {
        match &self.store {
            Store::Directory(store) => store.publish_manifest(&stored.manifest).await,
            Store::Objects(store) => store.publish_manifest(&stored.manifest).await,
        }
    }

    /// A task's staging manifest; none unless both of its stems exist with the recorded sizes.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn find(&self, task: &TaskId) -> Result<Option<StagingManifest>, StorageError> {
        let manifest = match &self.store {
            Store::Directory(store) => store.manifest(task).await?,
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

    /// Removes the unpublished stems of `attempt`.
    ///
    /// # Errors
    /// When the storage fails. Missing stems are no error.
    pub async fn discard_attempt(&self, task: &TaskId, attempt: AttemptId) -> Result<(), StorageError> {
        match &self.store {
            Store::Directory(store) => store.discard_attempt(task, attempt).await,
            Store::Objects(store) => store.discard_attempt(task, attempt).await,
        }
    }

    /// Removes a task's manifest, then the stems of all its attempts, so that a manifest never names missing stems;
    /// then the API's record.
    ///
    /// # Errors
    /// When the storage fails; a retry continues where it stopped. Missing files are no error.
    pub async fn remove(&self, task: &TaskId) -> Result<(), StorageError> {
        match &self.store {
            Store::Directory(store) => store.remove(task).await?,
            Store::Objects(store) => store.remove(task).await?,
        }
        self.delete_record(task).await
    }

    /// A stem that a result names, from this processor or uvr5-api's: a file below the directory of stems, or an object
    /// in an allowed bucket.
    ///
    /// # Errors
    /// When it does not exist or may not be read.
    pub async fn stem(&self, path: &str) -> Result<StemSource, StorageError> {
        self.sources.stem(path).await
    }

    /// Removes a stem that uvr5-api's processor stored for `task`: a file below the directory of stems whose name
    /// starts with the task's ID. Any other file stays.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove_uvr5_stem(&self, task: &TaskId, path: &str) -> Result<(), StorageError> {
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        if ObjectAddress::is_address(path) || !name.is_some_and(|name| name.starts_with(&format!("{task}_")))
        {
            return Ok(());
        }
        self.sources.delete_stem_file(path).await
    }
}
