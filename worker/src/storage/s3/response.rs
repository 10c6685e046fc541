//! Responses of the store.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::storage::StorageError;

/// The response to a request; errors name its action and location. The request is boxed: the SDK's futures have tens of
/// kilobytes, and every future that waits for one would contain it.
pub(super) fn response<T, E>(
    action: &'static str,
    location: &impl ToString,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> impl Future<Output = Result<T, StorageError>>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (request, error) = (Box::pin(request), StorageError::objects(action, location));
    async move { request.await.map_err(error) }
}
