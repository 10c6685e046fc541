//! Uploads: a client sends its song to the object store, and then creates the task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use separation_contract::environment as env;
use separation_contract::message::TaskId;
use serde::Serialize;

use super::super::app::App;
use super::super::clients::Client;
use super::identity::new_id;
use super::problem::{Problem, ProblemCode};
use crate::clock::rfc3339;

/// Time in which a client has to begin to send its song; less if the credentials of the store end before.
const UPLOAD_VALID: Duration = Duration::from_secs(60 * 60);

/// Maximum number of a client's uploads whose song is stored and that have no queued task. The store keeps them for two
/// days.
const MAX_UPLOADS: usize = 100;

/// `Retry-After` of a client with too many uploads, in seconds: fetching one takes about as long.
const RETRY_SECONDS: u64 = 30;

/// A place for a song.
#[derive(Debug, Serialize)]
pub(in crate::api) struct UploadView {
    id: TaskId,
    upload: UploadRequest,
    expires_at: String,
}

/// The request that sends the song.
#[derive(Debug, Serialize)]
struct UploadRequest {
    method: &'static str,
    url: String,
    headers: BTreeMap<String, String>,
}

/// `POST /v1/uploads`: a link to which the client sends its song.
pub(in crate::api) async fn create(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
) -> Result<(StatusCode, Json<UploadView>), Problem> {
    let v1 = app.v1()?;
    let id = new_id();
    let link = v1.store.presigned_upload(&client.name, &id, UPLOAD_VALID).await?;
    let link = link.ok_or_else(|| {
        let detail = format!(
            "this API has no uploads, because {} is not set; fix: send the song to /v1/tasks",
            env::S3_PUBLIC_ENDPOINT
        );
        Problem::with_detail(ProblemCode::NotFound, detail)
    })?;
    if v1.store.count_uploads(&client.name, MAX_UPLOADS).await? >= MAX_UPLOADS {
        let detail = format!(
            "{MAX_UPLOADS} uploads of `{}` have no task; fix: create their tasks first",
            client.name
        );
        return Err(Problem::too_many_requests(detail).retry_after(RETRY_SECONDS));
    }
    let upload = UploadRequest {
        method: "PUT",
        url: link.url.into(),
        headers: BTreeMap::new(),
    };
    let view = UploadView {
        id,
        upload,
        expires_at: rfc3339(link.expires_at),
    };
    Ok((StatusCode::CREATED, Json(view)))
}
