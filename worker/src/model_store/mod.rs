//! Models that are not on this machine yet: downloaded from an address into a cache, or converted from a package.
//!
//! A model appears under its final name only once it is complete and its checksum is verified. What a server sends is
//! described, and never used, if it is another file. Sends requests only by `outbound` and `storage`.

mod body;
mod durable;
mod error;
mod package;
mod part;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use separation_contract::backoff::Backoff;
use tokio::io::AsyncWriteExt as _;

pub use error::ModelStoreError;
pub use package::{FetchError, Fetched, fetch};

use self::body::Servers;
use self::part::Part;
use crate::model::{CatalogueEntry, file_kind, sha256_of_file};
use crate::outbound;
use crate::settings::{ModelAddress, ModelLocation, Sha256Hex};
use crate::storage::S3;

/// File names of a downloaded model and its sidecar, in a directory named by the checksum.
const MODEL: &str = "model.onnx";
const SIDECAR: &str = "model.json";

/// Held by the process that downloads.
const LOCK: &str = "lock";

/// Polling interval of the lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Pauses before a failed download is continued.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(15),
};

/// Consecutive failures after which a download on the command line fails: 15 s of pauses.
const MAX_FAILURES: u32 = 5;

/// Progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadProgress {
    /// Another process downloads the same model; this one waits for it.
    Waiting,
    /// The file is received.
    Receiving {
        /// Bytes that are stored.
        done_bytes: u64,
        /// Size of the file, if the server states it.
        total_bytes: Option<u64>,
    },
}

/// Downloads models into a cache directory.
#[derive(Debug, Clone)]
pub struct ModelStore {
    directory: PathBuf,
    servers: Servers,
}

impl ModelStore {
    /// A cache in `directory`. Objects need `s3`.
    pub fn new(directory: PathBuf, http: outbound::Client, s3: Option<S3>) -> Self {
        // The sidecar has no checksum, and an address may contain credentials.
        let http = http.encrypted();
        Self {
            directory,
            servers: Servers { http, s3 },
        }
    }

    /// The file of the model at an address, downloaded unless the cache has it. An interrupted download is continued.
    /// Its sidecar, if there is one, is stored next to it, unless the user has a file of its `parameters`.
    ///
    /// # Errors
    /// When the model or its sidecar cannot be downloaded or stored, or the model is another file.
    pub async fn obtain(
        &self,
        address: &ModelAddress,
        parameters: Option<&Path>,
        report: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<PathBuf, ModelStoreError> {
        let directory = self.directory.join(address.sha256.as_str());
        let (model, sidecar) = (directory.join(MODEL), directory.join(SIDECAR));
        let needs_sidecar = async || parameters.is_none() && !exists(&sidecar).await;
        // Before anything is written: the cache may be part of a read-only image.
        if !needs_sidecar().await && is_valid(&model, &address.sha256).await? {
            return Ok(model);
        }
        let created = tokio::fs::create_dir_all(&directory).await;
        created.map_err(ModelStoreError::file("create", &directory))?;
        let _lock = lock(&directory.join(LOCK), report).await?;
        durable::remove_abandoned(&directory);
        let part = Part::in_directory(&directory);
        let is_stored = is_valid(&model, &address.sha256).await?;
        if !is_stored {
            self.remove_abandoned(SystemTime::now()).await;
            self.download_verified(address, &part, report).await?;
        }
        // The model last: a loaded model has its parameters.
        if needs_sidecar().await {
            self.store_sidecar(address, &sidecar).await?;
        }
        match is_stored {
            true => part.discard().await?,
            false => part.publish(&model).await?,
        }
        Ok(model)
    }

    /// [`obtain`](Self::obtain), again after failures of the network or the server; `retrying` gets the failure and the
    /// pause before the next attempt.
    ///
    /// # Errors
    /// The last failure.
    pub async fn obtain_with_retries(
        &self,
        address: &ModelAddress,
        parameters: Option<&Path>,
        report: &mut (dyn FnMut(DownloadProgress) + Send),
        retrying: &mut dyn FnMut(&ModelStoreError, Duration),
    ) -> Result<PathBuf, ModelStoreError> {
        with_retries(
            async || self.obtain(address, parameters, &mut *report).await,
            retrying,
        )
        .await
    }

    /// Downloads the model into `part`, and verifies it. A download that was continued and is not the model is repeated
    /// once from its start: the part was damaged, or the server continued it with other content.
    async fn download_verified(
        &self,
        address: &ModelAddress,
        part: &Part,
        report: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<(), ModelStoreError> {
        // The sidecar may have failed after the model was complete.
        if is_valid(part.path(), &address.sha256).await? {
            return Ok(());
        }
        loop {
            let offset = self.download(&address.location, part, &mut *report).await?;
            let Err(error) = verify(part.path(), address).await else {
                return Ok(());
            };
            part.discard().await?;
            if offset == 0 {
                return Err(error);
            }
            tracing::warn!(
                location = %address.location,
                %error,
                "A continued download is not the model; downloading it from its start"
            );
        }
    }

    /// Downloads into `part`, and returns where the download began: 0 unless it continued the part.
    async fn download(
        &self,
        location: &ModelLocation,
        part: &Part,
        report: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<u64, ModelStoreError> {
        let text = location.to_string();
        let stored = part.stored(&text).await;
        let mut body = self.servers.open(location, stored.as_ref()).await?;
        let (offset, total_bytes) = (body.offset(), body.total_bytes());
        let mut done_bytes = offset;
        let mut file = part.open(offset, &text, body.validator()).await?;
        let unwritable = |error| ModelStoreError::file("write", part.path())(error);
        let receiving = async {
            loop {
                report(DownloadProgress::Receiving {
                    done_bytes,
                    total_bytes,
                });
                let Some(bytes) = body.next(location).await? else {
                    return Ok::<_, ModelStoreError>(());
                };
                file.write_all(&bytes).await.map_err(unwritable)?;
                done_bytes += bytes.len() as u64;
            }
        };
        let received = receiving.await;
        // Also after a failure: the next attempt continues there.
        file.flush().await.map_err(unwritable)?;
        received?;
        file.sync_all().await.map_err(unwritable)?;
        Ok(offset)
    }

    /// Removes the parts of other models whose download was interrupted long ago. Complete models stay.
    async fn remove_abandoned(&self, now: SystemTime) {
        let Ok(mut entries) = tokio::fs::read_dir(&self.directory).await else {
            return;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let directory = entry.path();
            let part = Part::in_directory(&directory);
            // A process that downloads holds the lock, as this one does for its own model.
            if let Ok(lock) = File::open(directory.join(LOCK))
                && lock.try_lock().is_ok()
                && part.is_abandoned(now).await
                && let Err(error) = part.discard().await
            {
                tracing::debug!(%error, "Cannot remove an abandoned download");
            }
        }
    }

    /// Stores the parameters of a known model, or else the sidecar next to the address, if it is a JSON object. The
    /// checksum does not cover it; it contains nothing but bounded numbers and names.
    async fn store_sidecar(&self, address: &ModelAddress, destination: &Path) -> Result<(), ModelStoreError> {
        let sha256 = address.sha256.as_str();
        let known = CatalogueEntry::with_sha256(sha256);
        let content = match known.and_then(|known| known.sidecar(sha256)) {
            Some(sidecar) => Some(sidecar.into_bytes()),
            None => {
                let location = address.location.sidecar();
                let content = self.servers.sidecar(&location).await?;
                // A server may answer any request with a page.
                content.filter(|content| {
                    let object =
                        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(content);
                    object.is_ok()
                })
            }
        };
        let Some(content) = content else {
            return Ok(());
        };
        durable::write(destination, &content).map_err(ModelStoreError::file("write", destination))
    }
}

/// Repeats a step after transient failures, at most [`MAX_FAILURES`] in all.
async fn with_retries<T>(
    mut step: impl AsyncFnMut() -> Result<T, ModelStoreError>,
    retrying: &mut dyn FnMut(&ModelStoreError, Duration),
) -> Result<T, ModelStoreError> {
    let mut failures = 0;
    loop {
        let error = match step().await {
            Err(error) if error.is_transient() => error,
            done => return done,
        };
        failures += 1;
        if failures >= MAX_FAILURES {
            return Err(error);
        }
        let pause = BACKOFF.after(failures);
        retrying(&error, pause);
        tokio::time::sleep(pause).await;
    }
}

async fn exists(path: &Path) -> bool {
    tokio::fs::try_exists(path).await.unwrap_or(false)
}

/// Whether there is a file with this checksum.
async fn is_valid(model: &Path, sha256: &Sha256Hex) -> Result<bool, ModelStoreError> {
    if !exists(model).await {
        return Ok(false);
    }
    Ok(checksum_of(model).await? == sha256.as_str())
}

/// Checks the downloaded file.
async fn verify(file: &Path, address: &ModelAddress) -> Result<(), ModelStoreError> {
    let found = checksum_of(file).await?;
    if found == address.sha256.as_str() {
        return Ok(());
    }
    Err(ModelStoreError::Checksum {
        location: address.location.to_string(),
        found,
        expected: address.sha256.to_string(),
        kind: file_kind::not_onnx(file),
    })
}

async fn checksum_of(file: &Path) -> Result<String, ModelStoreError> {
    let path = file.to_owned();
    let hashed = tokio::task::spawn_blocking(move || sha256_of_file(&path)).await;
    let hashed = hashed.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    hashed.map_err(ModelStoreError::file("read", file))
}

/// Acquires the lock at `path`, after other processes that download the same model.
async fn lock(
    path: &Path,
    report: &mut (dyn FnMut(DownloadProgress) + Send),
) -> Result<File, ModelStoreError> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(ModelStoreError::file("create", path))?;
    let mut is_waiting = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(ModelStoreError::file("lock", path)(error)),
            Err(TryLockError::WouldBlock) => {
                if !is_waiting {
                    report(DownloadProgress::Waiting);
                }
                is_waiting = true;
                tokio::time::sleep(LOCK_POLL).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
