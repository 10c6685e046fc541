//! Large objects: uploaded or copied in parts, made visible by one last request.

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedPart, MetadataDirective};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, pin_mut};

use super::S3;
use super::multipart::{MultipartUpload, copy_source};
use super::response::response;
use crate::settings::ObjectAddress;
use crate::storage::{StorageError, os_errors};

/// Parts in flight of one object. Each part of a file needs one buffer.
const PARTS_IN_FLIGHT: usize = 2;

/// Maximum number of parts of an object: S3's limit.
const MAX_PARTS: u64 = 10_000;

/// Read buffer of a file.
const BUFFER_BYTES: usize = 128 * 1024;

/// Sizes above which objects are sent in parts, and the sizes of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Largest file that one request uploads.
    pub single_put_bytes: u64,
    /// Part size of larger files; at least 5 MiB, S3's limit. Increased if 10,000 parts would not suffice.
    pub part_bytes: u64,
    /// Largest object that one request copies; at most 5 GiB, S3's limit.
    pub single_copy_bytes: u64,
    /// Part size of copies of larger objects.
    pub copy_part_bytes: u64,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            single_put_bytes: 16 << 20,
            part_bytes: 8 << 20,
            single_copy_bytes: 5 << 30,
            // 40 s at 25 MB/s, far below the time limit of a copy.
            copy_part_bytes: 1 << 30,
        }
    }
}

/// An object that one more request makes visible. Dropping it discards the object.
#[derive(Debug)]
#[must_use = "the object becomes visible only when it is published"]
pub struct PreparedObject(Prepared);

#[derive(Debug)]
enum Prepared {
    Put {
        s3: S3,
        file: PathBuf,
        size: u64,
        address: ObjectAddress,
        content_type: String,
    },
    Copy {
        s3: S3,
        source: ObjectAddress,
        address: ObjectAddress,
        content_type: String,
    },
    Parts {
        upload: MultipartUpload,
        parts: Vec<CompletedPart>,
    },
}

impl PreparedObject {
    /// Makes the object visible.
    ///
    /// # Errors
    /// When the store fails; the object may nevertheless be visible.
    pub async fn publish(self) -> Result<(), StorageError> {
        match self.0 {
            Prepared::Put {
                s3,
                file,
                size,
                address,
                content_type,
            } => {
                let body = file_body(&file, 0..size).await?;
                let request = s3.client.put_object().bucket(&address.bucket).key(&address.key);
                let request = request.content_type(content_type).body(body);
                response("upload", &address, request.send()).await.map(drop)
            }
            Prepared::Copy {
                s3,
                source,
                address,
                content_type,
            } => {
                let request = s3.client.copy_object().bucket(&address.bucket).key(&address.key);
                let request = request
                    .copy_source(copy_source(&source))
                    .metadata_directive(MetadataDirective::Replace)
                    .content_type(content_type);
                let request = request.customize().config_override(s3.times.server_side());
                response("copy", &source, request.send()).await.map(drop)
            }
            Prepared::Parts { upload, parts } => upload.complete(parts).await,
        }
    }
}

impl S3 {
    /// Uploads a file, up to the last request, which makes the object visible.
    ///
    /// # Errors
    /// When the file cannot be read or the store fails; nothing is left then.
    pub async fn prepare_upload(
        &self,
        file: &Path,
        address: &ObjectAddress,
        content_type: &str,
    ) -> Result<PreparedObject, StorageError> {
        let size = match tokio::fs::metadata(file).await {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StorageError::missing(&file.display()));
            }
            Err(error) => return Err(StorageError::file("look up", file)(error)),
        };
        if size <= self.limits.single_put_bytes {
            return Ok(PreparedObject(Prepared::Put {
                s3: self.clone(),
                file: file.to_owned(),
                size,
                address: address.clone(),
                content_type: content_type.to_owned(),
            }));
        }
        let upload = MultipartUpload::begin(self, address, content_type).await?;
        let ranges = parts_of(size, self.limits.part_bytes);
        let sent = futures_util::stream::iter(numbered(ranges).map(|(number, bytes)| {
            let upload = &upload;
            async move { upload.put_part(number, file_body(file, bytes).await?).await }
        }));
        let parts = sent.buffer_unordered(PARTS_IN_FLIGHT).try_collect().await?;
        Ok(PreparedObject(Prepared::Parts { upload, parts }))
    }

    /// Copies an object of `size` bytes server-side, up to the last request, which makes the copy visible.
    ///
    /// # Errors
    /// When the store fails; nothing is left then.
    pub async fn prepare_copy(
        &self,
        source: &ObjectAddress,
        size: u64,
        address: &ObjectAddress,
        content_type: &str,
    ) -> Result<PreparedObject, StorageError> {
        if size <= self.limits.single_copy_bytes {
            return Ok(PreparedObject(Prepared::Copy {
                s3: self.clone(),
                source: source.clone(),
                address: address.clone(),
                content_type: content_type.to_owned(),
            }));
        }
        let upload = MultipartUpload::begin(self, address, content_type).await?;
        let ranges = parts_of(size, self.limits.copy_part_bytes);
        let copied = futures_util::stream::iter(
            numbered(ranges).map(|(number, bytes)| upload.copy_part(number, source, bytes)),
        );
        let parts = copied.buffer_unordered(PARTS_IN_FLIGHT).try_collect().await?;
        Ok(PreparedObject(Prepared::Parts { upload, parts }))
    }

    /// Writes a stream to an object, visible once the stream has ended. Its caller limits the stream to `limit_bytes`,
    /// which decides the size of the parts.
    ///
    /// Holds one part in memory.
    ///
    /// # Errors
    /// When the stream or the store fails; then no object becomes visible.
    pub async fn put_stream(
        &self,
        stream: impl Stream<Item = Result<Bytes, StorageError>>,
        limit_bytes: u64,
        address: &ObjectAddress,
        content_type: &str,
    ) -> Result<(), StorageError> {
        pin_mut!(stream);
        let part_bytes = part_bytes(limit_bytes, self.limits.part_bytes);
        let mut buffer = BytesMut::new();
        let mut upload: Option<(MultipartUpload, Vec<CompletedPart>)> = None;
        while let Some(chunk) = stream.next().await {
            buffer.extend_from_slice(&chunk?);
            while buffer.len() as u64 >= part_bytes {
                // Fits usize: the buffer holds that many bytes.
                let part = buffer.split_to(part_bytes as usize).freeze();
                let (upload, parts) = match &mut upload {
                    Some(begun) => begun,
                    None => upload.insert((
                        MultipartUpload::begin(self, address, content_type).await?,
                        Vec::new(),
                    )),
                };
                // `part_bytes` keeps the number at 10,000 or less.
                let number = parts.len() as i32 + 1;
                parts.push(upload.put_part(number, part.into()).await?);
            }
        }
        let Some((upload, mut parts)) = upload else {
            return self.write_small(address, buffer, Some(content_type)).await;
        };
        if !buffer.is_empty() {
            let number = parts.len() as i32 + 1;
            parts.push(upload.put_part(number, buffer.freeze().into()).await?);
        }
        upload.complete(parts).await
    }
}

/// A byte range of a file as a streamed body.
async fn file_body(file: &Path, bytes: Range<u64>) -> Result<ByteStream, StorageError> {
    ByteStream::read_from()
        .path(file)
        .buffer_size(BUFFER_BYTES)
        .offset(bytes.start)
        .length(Length::Exact(bytes.end - bytes.start))
        .build()
        .await
        .map_err(|error| StorageError::file("read", file)(cause_of(error)))
}

/// The operating system's error that caused an error of the SDK, if any.
fn cause_of(error: impl Error + Send + Sync + 'static) -> std::io::Error {
    let number = os_errors(&error).next();
    number.map_or_else(|| std::io::Error::other(error), std::io::Error::from_raw_os_error)
}

/// The part size for `size` bytes: `least_bytes`, or more if 10,000 parts would not suffice.
fn part_bytes(size: u64, least_bytes: u64) -> u64 {
    least_bytes.max(size.div_ceil(MAX_PARTS))
}

/// Splits `size` bytes into parts.
fn parts_of(size: u64, least_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let part = part_bytes(size, least_bytes);
    (0..size.div_ceil(part)).map(move |index| index * part..size.min((index + 1) * part))
}

/// Numbers parts from 1, as S3 does; at most 10,000, so `i32` never overflows.
fn numbered(parts: impl Iterator<Item = Range<u64>>) -> impl Iterator<Item = (i32, Range<u64>)> {
    (1..).zip(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_cover_all_bytes_in_order_and_are_at_most_10_000(size in 1_u64..(50 << 40)) {
            let (mut end, mut count, least) = (0, 0, 8 << 20);
            for part in parts_of(size, least) {
                prop_assert_eq!(part.start, end);
                prop_assert!(part.end > part.start);
                prop_assert!(part.end - part.start >= least || part.end == size);
                (end, count) = (part.end, count + 1);
            }
            prop_assert_eq!(end, size);
            prop_assert!(count <= MAX_PARTS);
        }
    }
}
