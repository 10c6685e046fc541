//! The content at an address: the body of an HTTP response, or of an object.

use std::time::Duration;

use bytes::Bytes;
use separation_contract::model::MAX_MODEL_BYTES;

use super::ModelStoreError;
use crate::outbound::{Client, Download, DownloadLimits, OutboundError, ResumeFrom};
use crate::settings::ModelLocation;
use crate::storage::{OpenObject, S3, StorageError};

/// The largest sidecar; those of this project have under 1 KiB.
const MAX_SIDECAR_BYTES: u64 = 4 << 20;

/// Limits of a model's download. A download that takes longer is continued by the next attempt.
const MODEL_LIMITS: DownloadLimits = DownloadLimits {
    max_bytes: MAX_MODEL_BYTES,
    // 2 GiB at 600 kB/s.
    total: Duration::from_secs(60 * 60),
    idle: Duration::from_secs(30),
};

/// Limits of a sidecar's download.
const SIDECAR_LIMITS: DownloadLimits = DownloadLimits {
    max_bytes: MAX_SIDECAR_BYTES,
    total: Duration::from_secs(60),
    idle: Duration::from_secs(30),
};

/// Where models are downloaded from.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    pub(super) http: Client,
    pub(super) s3: Option<S3>,
}

/// The content of a model that is being downloaded.
pub(super) enum Body {
    Http(Box<Download>),
    Object(Box<OpenObject>),
}

impl Servers {
    /// Starts a download. It continues `stored` if the content is still the same.
    pub(super) async fn open(
        &self,
        location: &ModelLocation,
        stored: Option<&ResumeFrom>,
    ) -> Result<Body, ModelStoreError> {
        match self.open_at(location, stored).await {
            Err(error) if stored.is_some() && error.is_other_content() => self.open_at(location, None).await,
            opened => opened,
        }
    }

    async fn open_at(
        &self,
        location: &ModelLocation,
        stored: Option<&ResumeFrom>,
    ) -> Result<Body, ModelStoreError> {
        match location {
            ModelLocation::Http(url) => {
                let opened = self.http.get_from(url.as_str(), stored, MODEL_LIMITS).await;
                let download = opened.map_err(ModelStoreError::http(location))?;
                Ok(Body::Http(Box::new(download)))
            }
            ModelLocation::Object(object) => {
                let from = stored.map(|stored| (stored.offset, stored.validator.as_str()));
                let s3 = self.s3(location)?;
                let opened = s3.open_from(object, from, MAX_MODEL_BYTES).await;
                let object = opened.map_err(ModelStoreError::object(location))?;
                Ok(Body::Object(Box::new(object)))
            }
        }
    }

    /// The content of a sidecar; none if there is no such file that may be read.
    pub(super) async fn sidecar(&self, location: &ModelLocation) -> Result<Option<Vec<u8>>, ModelStoreError> {
        let read = match location {
            ModelLocation::Http(url) => {
                let mut content = Vec::new();
                let reading = async {
                    let mut body = self.http.get(url.as_str(), SIDECAR_LIMITS).await?;
                    while let Some(bytes) = body.chunk().await? {
                        content.extend_from_slice(&bytes);
                    }
                    Ok::<_, OutboundError>(())
                };
                let read = reading.await;
                read.map(|()| content).map_err(ModelStoreError::http(location))
            }
            ModelLocation::Object(object) => {
                let s3 = self.s3(location)?;
                // At most 4 MiB, so it fits usize.
                let read = s3.read_small(object, MAX_SIDECAR_BYTES as usize).await;
                read.map(Vec::from).map_err(ModelStoreError::object(location))
            }
        };
        match read {
            Ok(content) => Ok(Some(content)),
            // Without permission to list a bucket, a missing object is a refusal.
            Err(error) if error.is_missing() || error.is_refusal() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn s3(&self, location: &ModelLocation) -> Result<&S3, ModelStoreError> {
        self.s3.as_ref().ok_or_else(|| {
            let location_text = location.to_string();
            ModelStoreError::object(location)(StorageError::NoObjectStore {
                location: location_text,
            })
        })
    }
}

impl Body {
    /// Position of the first bytes in the content.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Http(download) => download.offset(),
            Self::Object(object) => object.offset,
        }
    }

    /// Size of the complete content, if known.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        match self {
            Self::Http(download) => download.total_bytes(),
            Self::Object(object) => Some(object.head.size),
        }
    }

    /// Identifies the content.
    pub(super) fn validator(&self) -> Option<String> {
        match self {
            Self::Http(download) => download.validator(),
            Self::Object(object) => Some(object.head.etag.clone()).filter(|etag| !etag.is_empty()),
        }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self, location: &ModelLocation) -> Result<Option<Bytes>, ModelStoreError> {
        match self {
            Self::Http(download) => download.chunk().await.map_err(ModelStoreError::http(location)),
            Self::Object(object) => object.next().await.map_err(ModelStoreError::object(location)),
        }
    }
}
