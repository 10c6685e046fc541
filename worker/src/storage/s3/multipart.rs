//! Multipart uploads: completed, or aborted without leaving parts.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::S3;
use super::response::response;
use crate::settings::ObjectAddress;
use crate::storage::StorageError;
use crate::storage::public_url::encoded;

/// Time limit of an abort, so that an unreachable store does not delay a worker's shutdown.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A multipart upload. Dropping it before it is complete aborts it, in the background.
///
/// A killed process leaves its parts in the store; a lifecycle rule for incomplete uploads removes them.
#[derive(Debug)]
pub(super) struct MultipartUpload {
    s3: S3,
    address: ObjectAddress,
    upload_id: String,
    open: bool,
}

impl MultipartUpload {
    pub(super) async fn begin(
        s3: &S3,
        address: &ObjectAddress,
        content_type: &str,
    ) -> Result<Self, StorageError> {
        let request = s3.client.create_multipart_upload();
        let request = request.bucket(&address.bucket).key(&address.key);
        let request = request.content_type(content_type);
        let answer = response("begin the upload of", address, request.send()).await?;
        Ok(Self {
            s3: s3.clone(),
            address: address.clone(),
            upload_id: answer.upload_id().unwrap_or_default().to_owned(),
            open: true,
        })
    }

    /// Uploads a part. Part numbers start at 1.
    pub(super) async fn put_part(
        &self,
        number: i32,
        body: ByteStream,
    ) -> Result<CompletedPart, StorageError> {
        let request = self.s3.client.upload_part();
        let request = request.bucket(&self.address.bucket).key(&self.address.key);
        let request = request.upload_id(&self.upload_id).part_number(number).body(body);
        let answer = response("upload a part of", &self.address, request.send()).await?;
        Ok(part(number, answer.e_tag()))
    }

    /// Copies a byte range of another object as a part, server-side. Part numbers start at 1.
    pub(super) async fn copy_part(
        &self,
        number: i32,
        source: &ObjectAddress,
        bytes: Range<u64>,
    ) -> Result<CompletedPart, StorageError> {
        let request = self.s3.client.upload_part_copy();
        let request = request.bucket(&self.address.bucket).key(&self.address.key);
        let request = request
            .upload_id(&self.upload_id)
            .part_number(number)
            .copy_source(copy_source(source))
            // The range is inclusive.
            .copy_source_range(format!("bytes={}-{}", bytes.start, bytes.end - 1));
        let request = request.customize().config_override(self.s3.times.server_side());
        let answer = response("copy a part of", source, request.send()).await?;
        let copied = answer.copy_part_result();
        Ok(part(number, copied.and_then(|result| result.e_tag())))
    }

    /// Completes the upload; the object becomes visible.
    pub(super) async fn complete(mut self, mut parts: Vec<CompletedPart>) -> Result<(), StorageError> {
        parts.sort_by_key(CompletedPart::part_number);
        let request = self.s3.client.complete_multipart_upload();
        let request = request.bucket(&self.address.bucket).key(&self.address.key);
        let request = request
            .upload_id(&self.upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        let request = request.customize().config_override(self.s3.times.server_side());
        response("complete the upload of", &self.address, request.send()).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for MultipartUpload {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // Without a runtime the process is ending: the parts stay, as after a kill.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let request = self.s3.client.abort_multipart_upload();
        let request = request.bucket(&self.address.bucket).key(&self.address.key);
        let request = request.upload_id(&self.upload_id);
        let object = self.address.to_string();
        runtime.spawn(async move {
            match tokio::time::timeout(ABORT_TIMEOUT, request.send()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(object, error = %crate::work::chain(&error), "Cannot abort a multipart upload");
                }
                Err(_) => tracing::warn!(object, "Aborting a multipart upload timed out"),
            }
        });
    }
}

fn part(number: i32, etag: Option<&str>) -> CompletedPart {
    CompletedPart::builder()
        .part_number(number)
        .set_e_tag(etag.map(str::to_owned))
        .build()
}

/// The value of `x-amz-copy-source`.
pub(super) fn copy_source(source: &ObjectAddress) -> String {
    format!("{}/{}", source.bucket, encoded(&source.key))
}
