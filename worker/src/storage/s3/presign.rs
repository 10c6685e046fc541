//! Presigned links: for a limited time, they allow clients without credentials to read or write one object.
//!
//! A signature contains the host, so links are signed for the endpoint that the clients reach.

use std::time::Duration;

use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use url::Url;

use super::S3;
use super::response::response;
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

/// The longest validity of a link: S3's limit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl S3 {
    /// A link to read an object for the time `valid`, at most a week, which is answered with this header
    /// `Content-Disposition`. None without a public endpoint. The object need not exist.
    ///
    /// # Errors
    /// When the credentials cannot be loaded.
    pub async fn presigned_get(
        &self,
        address: &ObjectAddress,
        content_disposition: &str,
        valid: Duration,
    ) -> Result<Option<Url>, StorageError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let request = signer.get_object().bucket(&address.bucket).key(&address.key);
        let request = request.response_content_disposition(content_disposition);
        let signed = response("sign a link to", address, request.presigned(within(valid))).await?;
        Ok(Some(link(&signed)))
    }

    /// A link to write an object by PUT for the time `valid`, at most a week, of any content type. None without a public
    /// endpoint.
    ///
    /// # Errors
    /// When the credentials cannot be loaded.
    pub async fn presigned_put(
        &self,
        address: &ObjectAddress,
        valid: Duration,
    ) -> Result<Option<Url>, StorageError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let request = signer.put_object().bucket(&address.bucket).key(&address.key);
        let signed = response("sign a link to", address, request.presigned(within(valid))).await?;
        Ok(Some(link(&signed)))
    }
}

fn within(valid: Duration) -> PresigningConfig {
    PresigningConfig::expires_in(valid.min(LONGEST)).expect("it is at most a week")
}

fn link(signed: &PresignedRequest) -> Url {
    Url::parse(signed.uri()).expect("the SDK signs absolute URLs")
}
