//! Conditional creation of small objects.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use separation_contract::backoff::Backoff;

use super::response::response;
use super::{PRECONDITION_FAILED, S3};
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

/// The code of a response to a request that another one for the same object overtook; S3 asks for a retry.
const CONFLICT: &str = "ConditionalRequestConflict";

/// Retries after conflicts, each with another create of the object: 50, 100, 200, 400 and 400 ms.
const MAX_RETRIES: u32 = 5;

const WAITS: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_millis(400),
};

/// Result of a conditional create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object did not exist and now has the given content.
    New,
    /// The object existed and is unchanged.
    Exists,
}

impl S3 {
    /// Writes a small object unless it exists: of several simultaneous creates, one is answered [`Created::New`].
    ///
    /// A repeated create whose first response was lost is answered [`Created::Exists`]. Without conditional writes, several
    /// simultaneous creates may be answered [`Created::New`]: in a store that refuses the condition, the object is looked up
    /// and then written; a store that ignores the condition replaces the object.
    ///
    /// # Errors
    /// When the store fails; the object may nevertheless have been created.
    pub async fn create_small(
        &self,
        address: &ObjectAddress,
        content: impl Into<Bytes>,
        content_type: Option<&str>,
    ) -> Result<Created, StorageError> {
        let content = content.into();
        match self
            .create_conditionally(address, content.clone(), content_type)
            .await
        {
            Err(error) if error.is_not_implemented() => {}
            created => return created,
        }
        if self.head(address).await?.is_some() {
            return Ok(Created::Exists);
        }
        self.write_small(address, content, content_type).await?;
        Ok(Created::New)
    }

    /// The same in one request (`If-None-Match: *`).
    ///
    /// # Errors
    /// As [`create_small`](Self::create_small); [`StorageError::is_not_implemented`] if the store refuses the condition.
    pub(crate) async fn create_conditionally(
        &self,
        address: &ObjectAddress,
        content: Bytes,
        content_type: Option<&str>,
    ) -> Result<Created, StorageError> {
        let mut conflicts = 0;
        loop {
            let request = self.client.put_object().bucket(&address.bucket).key(&address.key);
            let request = request
                .if_none_match("*")
                .set_content_type(content_type.map(str::to_owned))
                .body(ByteStream::from(content.clone()));
            match response("create", address, request.send()).await {
                Ok(_) => return Ok(Created::New),
                Err(StorageError::Objects { code, .. }) if code == PRECONDITION_FAILED || code == "412" => {
                    return Ok(Created::Exists);
                }
                Err(StorageError::Objects { code, .. }) if code == CONFLICT && conflicts < MAX_RETRIES => {
                    conflicts += 1;
                    tokio::time::sleep(WAITS.after(conflicts)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
