//! Listings of objects, and deletions by prefix.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::response::response;
use super::{S3, size_of};
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

/// Maximum number of objects in one page of a listing: S3's limit.
const PAGE_OBJECTS: usize = 1_000;

/// Deletions in flight of one prefix.
const DELETIONS_IN_FLIGHT: usize = 8;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The complete object key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was last written, Unix seconds by the store's clock; `u64::MAX` if the store does not report it.
    pub modified_at: u64,
}

/// A listing that is read page by page, so that memory does not depend on the number of objects.
///
/// Contains each object that exists from the first to the last page; objects may be deleted meanwhile.
#[derive(Debug)]
pub(crate) struct Pages {
    s3: S3,
    prefix: ObjectAddress,
    delimiter: Option<char>,
    after: Option<String>,
    ended: bool,
}

impl S3 {
    /// The first objects, at most `limit_objects`, whose object keys start with that of `prefix`, in key order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        prefix: &ObjectAddress,
        limit_objects: usize,
    ) -> Result<Vec<ListedObject>, StorageError> {
        self.list_after(prefix, None, None, limit_objects).await
    }

    /// The same, beginning after the object key `after`, and without object keys that contain `delimiter` after the
    /// prefix.
    async fn list_after(
        &self,
        prefix: &ObjectAddress,
        after: Option<&str>,
        delimiter: Option<char>,
        limit_objects: usize,
    ) -> Result<Vec<ListedObject>, StorageError> {
        let mut objects = Vec::new();
        let mut continuation: Option<String> = None;
        while objects.len() < limit_objects {
            let page = PAGE_OBJECTS.min(limit_objects - objects.len());
            let request = self.client.list_objects_v2();
            let request = request.bucket(&prefix.bucket).prefix(&prefix.key);
            let start = after.filter(|_| continuation.is_none());
            let request = request
                .set_start_after(start.map(str::to_owned))
                .set_delimiter(delimiter.map(String::from))
                // At most 1,000.
                .max_keys(page as i32)
                .set_continuation_token(continuation);
            let answer = response("list", prefix, request.send()).await?;
            objects.extend(answer.contents().iter().filter_map(|object| {
                let modified = object.last_modified().map(|time| time.secs());
                Some(ListedObject {
                    key: object.key()?.to_owned(),
                    size: size_of(object.size()),
                    modified_at: modified.map_or(u64::MAX, |time| u64::try_from(time).unwrap_or(0)),
                })
            }));
            continuation = answer.next_continuation_token().map(str::to_owned);
            if continuation.is_none() {
                break;
            }
        }
        Ok(objects)
    }

    /// The first 1,000 objects after the object key `after`, in key order, and the object key after which the next ones
    /// begin; none at the end.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn page_after(
        &self,
        prefix: &ObjectAddress,
        after: Option<&str>,
    ) -> Result<(Vec<ListedObject>, Option<String>), StorageError> {
        let objects = self.list_after(prefix, after, None, PAGE_OBJECTS).await?;
        let last = objects.last().filter(|_| objects.len() == PAGE_OBJECTS);
        let next = last.map(|object| object.key.clone());
        Ok((objects, next))
    }

    /// All objects whose object keys start with that of `prefix`, in key order.
    pub(crate) fn pages(&self, prefix: &ObjectAddress) -> Pages {
        Pages {
            s3: self.clone(),
            prefix: prefix.clone(),
            delimiter: None,
            after: None,
            ended: false,
        }
    }

    /// The same without object keys that have a slash after the prefix.
    pub(crate) fn pages_without_directories(&self, prefix: &ObjectAddress) -> Pages {
        Pages {
            delimiter: Some('/'),
            ..self.pages(prefix)
        }
    }

    /// Deletes all objects whose object keys start with that of `prefix`; returns how many.
    ///
    /// # Errors
    /// When the store fails; a retry continues where it stopped.
    pub(crate) async fn delete_below(&self, prefix: &ObjectAddress) -> Result<usize, StorageError> {
        let mut deleted = 0;
        let mut pages = self.pages(prefix);
        while let Some(page) = pages.next_page().await? {
            deleted += page.len();
            self.delete_all(&prefix.bucket, page).await?;
        }
        Ok(deleted)
    }

    /// Deletes listed objects, several simultaneously.
    ///
    /// # Errors
    /// When the store fails. Missing objects are no error.
    pub(crate) async fn delete_all(
        &self,
        bucket: &str,
        objects: Vec<ListedObject>,
    ) -> Result<(), StorageError> {
        let deletions = objects.into_iter().map(|object| {
            let address = ObjectAddress {
                bucket: bucket.to_owned(),
                key: object.key,
            };
            async move { self.delete(&address).await }
        });
        let deleted = stream::iter(deletions).buffer_unordered(DELETIONS_IN_FLIGHT);
        deleted.try_collect::<Vec<()>>().await.map(drop)
    }
}

impl Pages {
    /// The next objects, in key order; none at the end.
    ///
    /// # Errors
    /// When the store fails; the same page is read again then.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<ListedObject>>, StorageError> {
        if self.ended {
            return Ok(None);
        }
        let after = self.after.as_deref();
        let page = self
            .s3
            .list_after(&self.prefix, after, self.delimiter, PAGE_OBJECTS);
        let page = page.await?;
        self.ended = page.len() < PAGE_OBJECTS;
        self.after = page.last().map(|object| object.key.clone());
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}
