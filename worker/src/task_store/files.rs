//! Finished stems with their peaks and previews, and uploaded songs.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use separation_contract::message::TaskId;
use url::Url;

use super::TaskStore;
use super::area::{ClientPart, Kind};
use crate::settings::ObjectAddress;
use crate::storage::{PreparedObject, PresignedLink, StemSource, StorageError};

/// Bytes that are encoded in `filename*` (RFC 5987, 3.2.1).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A file, or a part of one, that is being read.
pub struct StoredFile {
    /// The MIME type.
    pub content_type: String,
    /// The `ETag`, with quotes; changes with the content.
    pub etag: String,
    /// Length of `body`.
    pub length_bytes: u64,
    /// The position of a part, as in the header `Content-Range`; none for the complete file.
    pub content_range: Option<String>,
    /// The content; ends with an error if the store does not send `length_bytes`.
    pub body: BoxStream<'static, Result<Bytes, StorageError>>,
}

impl TaskStore {
    /// Sends a stem's data, up to the last request, which makes it visible as `file` of the task.
    ///
    /// # Errors
    /// When the stem does not exist or the store fails.
    pub async fn prepare_stem(
        &self,
        id: &TaskId,
        file: &str,
        content_type: &str,
        stem: &StemSource,
    ) -> Result<PreparedObject, StorageError> {
        let address = self.stem(id, file);
        stem.prepare(self.area.s3(), &address, content_type).await
    }

    /// Stores a small file of a task next to its stems.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_file(
        &self,
        id: &TaskId,
        file: &str,
        content_type: &str,
        content: Bytes,
    ) -> Result<(), StorageError> {
        let address = self.stem(id, file);
        self.area
            .s3()
            .write_small(&address, content, Some(content_type))
            .await
    }

    /// Starts reading a stem or another file of a task; none if it does not exist. `range` is a value of the header
    /// `Range`; as HTTP demands, anything but one range of bytes is ignored.
    ///
    /// # Errors
    /// When the store fails, or the range begins after the end of the file
    /// ([`StorageError::is_unsatisfiable_range`]).
    pub async fn open_file(
        &self,
        id: &TaskId,
        file: &str,
        range: Option<&str>,
    ) -> Result<Option<StoredFile>, StorageError> {
        let range = range.filter(|range| is_range_of_bytes(range));
        let part = match self.area.s3().open_range(&self.stem(id, file), range).await {
            Err(error) if error.is_missing() => return Ok(None),
            opened => opened?,
        };
        let unknown = || "application/octet-stream".to_owned();
        Ok(Some(StoredFile {
            content_type: part.content_type.unwrap_or_else(unknown),
            etag: part.content.head.etag.clone(),
            length_bytes: part.content.head.size,
            content_range: part.content_range,
            body: part.content.into_stream(),
        }))
    }

    /// A link to a stem for the time `valid`, at most a week; its response proposes `file_name` to save it. None without
    /// a public endpoint.
    ///
    /// # Errors
    /// When the credentials of the store cannot be loaded.
    pub async fn presigned_file(
        &self,
        id: &TaskId,
        file: &str,
        file_name: &str,
        valid: Duration,
    ) -> Result<Option<Url>, StorageError> {
        let header = content_disposition(file_name);
        let stem = self.stem(id, file);
        let link = self.area.s3().presigned_get(&stem, &header, valid).await;
        Ok(link?.map(|link| link.url))
    }

    /// Removes a task's stems, peaks and previews.
    ///
    /// # Errors
    /// When the store fails; a retry continues where it stopped.
    pub async fn remove_stems(&self, id: &TaskId) -> Result<(), StorageError> {
        let stems = self.stem(id, "");
        self.area.s3().delete_below(&stems).await.map(drop)
    }

    /// A link to upload a song by PUT for the time `valid`, at most a week. None without a public endpoint.
    ///
    /// # Errors
    /// When the credentials of the store cannot be loaded.
    pub async fn presigned_upload(
        &self,
        client: &str,
        id: &TaskId,
        valid: Duration,
    ) -> Result<Option<PresignedLink>, StorageError> {
        let address = self.upload(client, id);
        self.area.s3().presigned_put(&address, valid).await
    }

    /// Number of the client's uploaded songs, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_uploads(&self, client: &str, limit: usize) -> Result<usize, StorageError> {
        let prefix = self.area.client_prefix(Kind::Uploads, &ClientPart::of(client));
        Ok(self.area.s3().list(&prefix, limit).await?.len())
    }

    /// Size of an uploaded song; none if it does not exist.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn upload_size(&self, client: &str, id: &TaskId) -> Result<Option<u64>, StorageError> {
        let head = self.area.s3().head(&self.upload(client, id)).await?;
        Ok(head.map(|head| head.size))
    }

    /// Starts reading an uploaded song.
    ///
    /// # Errors
    /// When it does not exist (`Missing`) or is larger than `limit_bytes` (`TooLarge`), or the store fails.
    pub async fn open_upload(
        &self,
        client: &str,
        id: &TaskId,
        limit_bytes: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, StorageError>>, StorageError> {
        let address = self.upload(client, id);
        let song = self.area.s3().open(&address, limit_bytes).await?;
        Ok(song.into_stream())
    }

    /// Deletes an uploaded song.
    ///
    /// # Errors
    /// When the store fails. A missing one is no error.
    pub async fn delete_upload(&self, client: &str, id: &TaskId) -> Result<(), StorageError> {
        self.area.s3().delete(&self.upload(client, id)).await
    }

    fn stem(&self, id: &TaskId, file: &str) -> ObjectAddress {
        self.area.at(Kind::Stems, &format!("{id}/{file}"))
    }

    fn upload(&self, client: &str, id: &TaskId) -> ObjectAddress {
        self.area
            .of_client(Kind::Uploads, &ClientPart::of(client), id, "")
    }
}

/// The value of the header `Content-Disposition` with which a browser saves a response as `file_name` (RFC 6266).
pub(crate) fn content_disposition(file_name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | '_' | '(' | ')');
    let plain: String = file_name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    let encoded = utf8_percent_encode(file_name, ENCODED);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// Whether a value of the header `Range` is one range of bytes, in order (RFC 9110, 14.1.2).
fn is_range_of_bytes(range: &str) -> bool {
    let position = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u64>().ok().map(Some),
        _ => None,
    };
    let ends = range.strip_prefix("bytes=").and_then(|ends| ends.split_once('-'));
    match ends.map(|(first, last)| (position(first), position(last))) {
        Some((Some(Some(first)), Some(Some(last)))) => first <= last,
        Some((Some(first), Some(last))) => first.is_some() || last.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_range_of_bytes_counts() {
        for range in [
            "bytes=0-0",
            "bytes=5-",
            "bytes=-5",
            "bytes=0-18446744073709551615",
        ] {
            assert!(is_range_of_bytes(range), "{range}");
        }
        for range in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=+1-2",
            "bytes=0-18446744073709551616",
            "items=0-1",
            "0-1",
        ] {
            assert!(!is_range_of_bytes(range), "{range}");
        }
    }

    #[test]
    fn a_file_name_cannot_end_its_header() {
        assert_eq!(
            content_disposition("a \"b\"\r\n\\é (vocals).wav"),
            "attachment; filename=\"a _b_____ (vocals).wav\"; \
             filename*=UTF-8''a%20%22b%22%0D%0A%5C%C3%A9%20%28vocals%29.wav"
        );
    }
}
