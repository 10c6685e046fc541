//! A client for an object store with the S3 API.
//!
//! Returns errors with a class; the callers retry. Never holds more of an object than one part in memory.

mod connect;
mod create;
mod listing;
mod multipart;
mod presign;
mod probe;
mod response;
mod signer;
mod transfer;

use std::path::Path;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

pub use connect::TimeLimits;
pub use create::Created;
pub use listing::ListedObject;
pub(crate) use listing::Pages;
pub use signer::PresignedLink;
pub use transfer::{PreparedObject, TransferLimits};

use self::response::response;
use self::signer::Signer;
use super::StorageError;
use crate::error::ErrorClass;
use crate::settings::ObjectAddress;

/// Object key that is never written, read to check access; start of the object keys of [`S3::try_operations`].
const PROBE: &str = ".separation-worker-probe";

/// The code of a 404 response without an error code.
const NOT_FOUND: &str = "404";

/// The code of a response to a request whose condition on the object does not hold.
const PRECONDITION_FAILED: &str = "PreconditionFailed";

/// One object store; clones share its connections.
#[derive(Debug, Clone)]
pub struct S3 {
    client: aws_sdk_s3::Client,
    /// Signs links for the public endpoint; none without one.
    signer: Option<Signer>,
    limits: TransferLimits,
    times: TimeLimits,
}

/// Metadata of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Size in bytes.
    pub size: u64,
    /// The `ETag`, with quotes; changes with the content.
    pub etag: String,
}

impl S3 {
    /// The same store with other transfer limits.
    #[must_use]
    pub fn with_limits(mut self, limits: TransferLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Reads an object's metadata; none only if the store responds with `NoSuchKey`: a plain 404 may come from any
    /// proxy, and a 404 for the bucket is the store's failure.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head(&self, address: &ObjectAddress) -> Result<Option<ObjectHead>, StorageError> {
        let request = self.client.head_object();
        let request = request.bucket(&address.bucket).key(&address.key);
        let answer = match response("look up", address, request.send()).await {
            Err(StorageError::Objects { code, .. }) if code == NOT_FOUND => {
                // The response to HEAD has no body with an error code.
                return match self.open_start(address).await {
                    Err(error) if error.is_missing() => Ok(None),
                    Err(error) => Err(error),
                    Ok(()) => Err(StorageError::Objects {
                        action: "look up",
                        location: address.to_string(),
                        problem: "it was created meanwhile".to_owned(),
                        code,
                        class: ErrorClass::Transient,
                    }),
                };
            }
            answer => answer?,
        };
        Ok(Some(ObjectHead {
            size: size_of(answer.content_length()),
            etag: answer.e_tag().unwrap_or_default().to_owned(),
        }))
    }

    /// Checks that this worker may read below `prefix`, by reading an object that does not exist.
    ///
    /// # Errors
    /// When the store refuses or fails. The store also refuses, with 403, if the worker may not list the bucket.
    pub(crate) async fn check_access(&self, prefix: &ObjectAddress) -> Result<(), StorageError> {
        match self.open_start(&prefix.join(PROBE)).await {
            Err(error) if error.is_missing() => Ok(()),
            opened => opened,
        }
    }

    /// Starts to read an object and drops its body.
    async fn open_start(&self, address: &ObjectAddress) -> Result<(), StorageError> {
        let request = self.client.get_object().bucket(&address.bucket).key(&address.key);
        response("look up", address, request.send()).await.map(drop)
    }

    /// Reads an object of at most `limit_bytes`.
    ///
    /// # Errors
    /// When it does not exist, is larger, or the store fails.
    pub async fn read_small(
        &self,
        address: &ObjectAddress,
        limit_bytes: usize,
    ) -> Result<Bytes, StorageError> {
        let mut object = self.open(address, limit_bytes as u64).await?;
        let mut content = Vec::with_capacity(usize::try_from(object.head.size).unwrap_or(0));
        while let Some(chunk) = object.next().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content.into())
    }

    /// Writes a small object.
    ///
    /// # Errors
    /// When the store fails; then the object is unchanged.
    pub async fn write_small(
        &self,
        address: &ObjectAddress,
        content: impl Into<Bytes>,
        content_type: Option<&str>,
    ) -> Result<(), StorageError> {
        let request = self.client.put_object().bucket(&address.bucket).key(&address.key);
        let request = request
            .set_content_type(content_type.map(str::to_owned))
            .body(ByteStream::from(content.into()));
        response("write", address, request.send()).await.map(drop)
    }

    /// Downloads an object of at most `limit_bytes` to the file `path`, which is created or replaced. The file is not
    /// synced, because it need not survive a crash of the machine.
    ///
    /// # Errors
    /// When the object does not exist, is larger or ends early, or the file cannot be written. An incomplete file may
    /// be left.
    pub async fn download(
        &self,
        address: &ObjectAddress,
        path: &Path,
        limit_bytes: u64,
    ) -> Result<ObjectHead, StorageError> {
        let mut object = self.open(address, limit_bytes).await?;
        let mut file = tokio::fs::File::create(path)
            .await
            .map_err(StorageError::scratch("create", path))?;
        while let Some(chunk) = object.next().await? {
            file.write_all(&chunk)
                .await
                .map_err(StorageError::scratch("write", path))?;
        }
        file.flush().await.map_err(StorageError::scratch("write", path))?;
        Ok(object.head)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When the store fails. A missing object is no error.
    pub async fn delete(&self, address: &ObjectAddress) -> Result<(), StorageError> {
        let request = self.client.delete_object();
        let request = request.bucket(&address.bucket).key(&address.key);
        match response("delete", address, request.send()).await {
            Err(error) if error.is_missing() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Starts reading an object of at most `limit_bytes`.
    ///
    /// # Errors
    /// As [`read_small`](Self::read_small).
    pub(crate) async fn open(
        &self,
        address: &ObjectAddress,
        limit_bytes: u64,
    ) -> Result<OpenObject, StorageError> {
        self.open_from(address, None, limit_bytes).await
    }

    /// Starts reading an object at an offset, if it still has the `ETag` `from.1`.
    ///
    /// # Errors
    /// As [`read_small`](Self::read_small). With the code `PreconditionFailed` if the object has changed, or the store does
    /// not send the rest of it.
    pub(crate) async fn open_from(
        &self,
        address: &ObjectAddress,
        from: Option<(u64, &str)>,
        limit_bytes: u64,
    ) -> Result<OpenObject, StorageError> {
        let request = self.client.get_object().bucket(&address.bucket).key(&address.key);
        let request = request
            .set_range(from.map(|(offset, _)| format!("bytes={offset}-")))
            .set_if_match(from.map(|(_, etag)| etag.to_owned()));
        let answer = response("read", address, request.send()).await?;
        let length = size_of(answer.content_length());
        let offset = match (from, answer.content_range()) {
            (Some((offset, etag)), Some(range)) => {
                let size = offset.saturating_add(length);
                let is_same = answer.e_tag().is_none_or(|found| found == etag);
                if !is_same || range != format!("bytes {offset}-{}/{size}", size.saturating_sub(1)) {
                    return Err(StorageError::Objects {
                        action: "read",
                        location: address.to_string(),
                        problem: "the store sent another part, or one of another object".to_owned(),
                        code: PRECONDITION_FAILED.to_owned(),
                        class: ErrorClass::Transient,
                    });
                }
                offset
            }
            // A store that ignores the range sends the complete object.
            _ => 0,
        };
        let head = ObjectHead {
            size: offset.saturating_add(length),
            etag: answer.e_tag().unwrap_or_default().to_owned(),
        };
        let object = OpenObject {
            location: address.to_string(),
            head,
            offset,
            limit_bytes,
            read_bytes: offset,
            body: answer.body,
        };
        object.check(object.head.size)?;
        Ok(object)
    }

    /// Starts reading an object, or the part that `range`, a value of the header `Range`, names. A store may ignore it.
    ///
    /// # Errors
    /// When the object does not exist or the store fails; see [`StorageError::is_unsatisfiable_range`].
    pub(crate) async fn open_range(
        &self,
        address: &ObjectAddress,
        range: Option<&str>,
    ) -> Result<OpenPart, StorageError> {
        let request = self.client.get_object().bucket(&address.bucket).key(&address.key);
        let request = request.set_range(range.map(str::to_owned));
        let answer = response("read", address, request.send()).await?;
        Ok(OpenPart {
            content_type: answer.content_type().map(str::to_owned),
            content_range: answer.content_range().map(str::to_owned),
            content: OpenObject {
                location: address.to_string(),
                head: ObjectHead {
                    size: size_of(answer.content_length()),
                    etag: answer.e_tag().unwrap_or_default().to_owned(),
                },
                offset: 0,
                limit_bytes: u64::MAX,
                read_bytes: 0,
                body: answer.body,
            },
        })
    }
}

/// An object, or a part of one, that is being read.
pub(crate) struct OpenPart {
    /// The content; its size is that of the part.
    pub(crate) content: OpenObject,
    /// The MIME type, if the object has one.
    pub(crate) content_type: Option<String>,
    /// The position of a part, as in the header `Content-Range`; none for the complete object.
    pub(crate) content_range: Option<String>,
}

/// An object that is being read.
pub(crate) struct OpenObject {
    location: String,
    /// Metadata of the complete object.
    pub(crate) head: ObjectHead,
    /// Position of the first byte that is read.
    pub(crate) offset: u64,
    limit_bytes: u64,
    /// Bytes of the object so far, those before `offset` included.
    read_bytes: u64,
    body: ByteStream,
}

impl OpenObject {
    /// The next bytes; none at the end, and an error if the body is shorter than its `Content-Length`.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let incomplete = |location: &str, problem: String| StorageError::Objects {
            action: "read",
            location: location.to_owned(),
            problem,
            code: "response".to_owned(),
            // Maybe only this object is damaged, so retries are limited.
            class: ErrorClass::Transient,
        };
        match self.body.next().await {
            Some(Ok(chunk)) => {
                self.read_bytes += chunk.len() as u64;
                self.check(self.read_bytes)?;
                Ok(Some(chunk))
            }
            Some(Err(error)) => Err(incomplete(&self.location, crate::work::chain(&error))),
            None if self.read_bytes == self.head.size => Ok(None),
            None => {
                let problem = format!(
                    "it ended early, after {} of {} bytes",
                    self.read_bytes, self.head.size
                );
                Err(incomplete(&self.location, problem))
            }
        }
    }

    /// The content as a stream, which ends after its first error.
    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<Bytes, StorageError>> {
        let content = stream::try_unfold(self, |mut object| async move {
            let chunk = object.next().await?;
            Ok::<_, StorageError>(chunk.map(|chunk| (chunk, object)))
        });
        content.boxed()
    }

    fn check(&self, bytes: u64) -> Result<(), StorageError> {
        if bytes <= self.limit_bytes {
            return Ok(());
        }
        Err(StorageError::too_large(&self.location, self.limit_bytes))
    }
}

/// A size from the store; the SDK's type is signed, the value never negative.
fn size_of(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}
