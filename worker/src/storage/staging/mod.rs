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
mod store;
mod sweep;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use separation_contract::message::TaskId;
use separation_contract::names;

pub use self::files::{StagedInput, StemFiles, StemSource, StoredStems};

use self::directory::DirectoryStore;
use self::objects::ObjectStore;
use self::sources::Sources;
use self::store::{StagedFile, Store};
use super::confine::{MissingRoot, Root};
use super::{AttemptId, AttemptScratch, InputIdentity, S3, StagingManifest, StorageError};
use crate::model::Provenance;
use crate::settings::{ObjectAddress, StagingSettings};

/// Staging of songs and stems; cheap to clone.
#[derive(Debug, Clone)]
pub struct Staging {
    sources: Sources,
    store: Arc<dyn Store>,
    location: String,
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
        let store: Arc<dyn Store> = match &settings.s3_staging {
            None => {
                let (inputs, stems) = (inputs.path().to_owned(), stems.path().to_owned());
                Arc::new(DirectoryStore::open(inputs, stems).await?)
            }
            Some(prefix) => {
                let s3 = s3.clone().ok_or_else(|| StorageError::NoObjectStore {
                    location: prefix.to_string(),
                })?;
                Arc::new(ObjectStore::new(s3, prefix.clone()))
            }
        };
        let location = match &settings.s3_staging {
            None => inputs.path().display().to_string(),
            Some(prefix) => prefix.to_string(),
        };
        Ok(Self {
            sources: Sources::new(inputs, stems, settings, s3),
            store,
            location,
        })
    }

    /// Where songs are staged: a directory, or the address of a prefix.
    pub(crate) fn location(&self) -> &str {
        &self.location
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
        let location = self.store.location(task, StagedFile::Input)?;
        let (mut total, song) = (0, location.clone());
        let content = stream.map(move |chunk| {
            let chunk = chunk.map_err(|error| StorageError::Stream(error.into()))?;
            total += chunk.len() as u64;
            if total > limit_bytes {
                return Err(StorageError::too_large(&song, limit_bytes));
            }
            Ok(chunk)
        });
        let stored = self
            .store
            .put(task, StagedFile::Input, content.boxed(), limit_bytes);
        stored.await.map(|()| location)
    }

    /// The `audio_path` at which [`Self::put_input`] stores the song of `task`.
    ///
    /// # Errors
    /// When the path is not UTF-8.
    pub fn input_path(&self, task: &TaskId) -> Result<String, StorageError> {
        self.store.location(task, StagedFile::Input)
    }

    /// Deletes the input of `task` if its name is `<task>_input.wav`, as the API stores it: a shared file, or an object
    /// below the staging prefix. Any other input stays, because another task may name it too. Returns whether the
    /// input is deleted.
    ///
    /// # Errors
    /// When the path may not be used or the storage fails; an input that does not exist is no error.
    pub async fn delete_input(&self, task: &TaskId, audio_path: &str) -> Result<bool, StorageError> {
        if audio_path.parse::<ObjectAddress>().is_ok() {
            let own = self.store.location(task, StagedFile::Input);
            let is_own = own.is_ok_and(|own| own == audio_path);
            if is_own {
                self.store.delete(task, StagedFile::Input).await?;
            }
            return Ok(is_own);
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
        let record = Bytes::copy_from_slice(record);
        self.put_small(task, StagedFile::Record, record).await
    }

    /// The API's record of a task; none if it does not exist.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn record(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        self.store.read(task, StagedFile::Record).await
    }

    /// Deletes the API's record of a task.
    ///
    /// # Errors
    /// When the storage fails. A missing record is no error.
    pub async fn delete_record(&self, task: &TaskId) -> Result<(), StorageError> {
        self.store.delete(task, StagedFile::Record).await
    }

    /// Stores a task's stems under `attempt`; invisible until [`Self::publish_manifest`]. May be retried after a
    /// failure. The model is given by its fingerprint, its license and its origin.
    ///
    /// # Errors
    /// When a stem cannot be read or written.
    pub async fn store(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        stems: StemFiles<'_>,
        input: &InputIdentity,
        model: (&str, &Provenance),
    ) -> Result<StoredStems, StorageError> {
        // Concurrently: the processor and its GPU wait for both. Both end before an error is returned, so that nothing
        // is stored after the attempt is discarded.
        let (vocals, instrumental) = (names::vocals_key(task), names::instrumental_key(task));
        let (vocals, instrumental) = tokio::join!(
            self.store.store_stem(task, attempt, &vocals, stems.vocals),
            self.store
                .store_stem(task, attempt, &instrumental, stems.instrumental)
        );
        let manifest = StagingManifest::new(task, attempt, input.clone(), model, [vocals?, instrumental?]);
        Ok(StoredStems { manifest })
    }

    /// Publishes stored stems by writing their manifest, which replaces that of any other attempt. The caller must
    /// confirm its partition ownership immediately before.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub async fn publish_manifest(&self, stored: &StoredStems) -> Result<(), StorageError> {
        let (task, manifest) = (&stored.manifest.task_uuid, stored.manifest.to_json());
        self.put_small(task, StagedFile::Manifest, manifest.into()).await
    }

    /// A task's staging manifest; none unless both of its stems exist with the recorded sizes.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn find(&self, task: &TaskId) -> Result<Option<StagingManifest>, StorageError> {
        let manifest = self.store.read(task, StagedFile::Manifest).await?;
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

    /// License and origin of the model that made a task's published stems, of which `vocals` is the path of one; none if
    /// they are not known.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn provenance(&self, task: &TaskId, vocals: &str) -> Result<Option<Provenance>, StorageError> {
        let bytes = self.store.read(task, StagedFile::Manifest).await?;
        let manifest = bytes.and_then(|bytes| StagingManifest::read(task, &bytes));
        let manifest = manifest.filter(|manifest| manifest.vocals.path == vocals);
        Ok(manifest.and_then(|manifest| manifest.provenance))
    }

    /// Removes the unpublished stems of `attempt`.
    ///
    /// # Errors
    /// When the storage fails. Missing stems are no error.
    pub async fn discard_attempt(&self, task: &TaskId, attempt: AttemptId) -> Result<(), StorageError> {
        self.store.discard_attempt(task, attempt).await
    }

    /// Removes a task's manifest, then the stems of all its attempts, so that a manifest never names missing stems;
    /// then the API's record.
    ///
    /// # Errors
    /// When the storage fails; a retry continues where it stopped. Missing files are no error.
    pub async fn remove(&self, task: &TaskId) -> Result<(), StorageError> {
        self.store.remove_stems(task).await?;
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

    /// A path from which `stem` can be read: the shared file, valid while `stem` is held, or a copy of the object in
    /// `scratch`.
    ///
    /// # Errors
    /// When the object cannot be read or is larger than the scratch space.
    pub async fn stem_file(
        &self,
        stem: &StemSource,
        scratch: &AttemptScratch,
    ) -> Result<PathBuf, StorageError> {
        self.sources.stem_file(stem, scratch).await
    }

    /// Deletes songs that were stored before `time`, in Unix seconds, under names of the API, `<task>_input.wav`, unless the
    /// record of their task still exists: it has not ended then. Returns their number. Other files stay. Continues after a
    /// song that cannot be deleted.
    ///
    /// # Errors
    /// When the storage cannot list the songs.
    pub async fn remove_inputs_before(&self, time: u64) -> Result<usize, StorageError> {
        self.store.remove_inputs_before(time).await
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

    async fn put_small(&self, task: &TaskId, file: StagedFile, content: Bytes) -> Result<(), StorageError> {
        let limit_bytes = content.len() as u64;
        let content = stream::iter([Ok(content)]).boxed();
        self.store.put(task, file, content, limit_bytes).await
    }
}
