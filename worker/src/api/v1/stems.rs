//! Stems with ranges, and for players their peaks and previews.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use separation_contract::api_task::StemKind;
use separation_contract::message::TaskId;

use super::super::app::App;
use super::super::clients::Client;
use super::problem::Problem;
use super::snapshot::context;
use super::state::V1;
use crate::task_store::{EndState, StoredFile, StoredOutcome, StoredStem, StoredTask, content_disposition};

/// Time in which a client has to begin to read a stem at its presigned link; less if the credentials of the store end
/// before. Then the address of the stem redirects to another link.
const LINK_VALID: Duration = Duration::from_secs(15 * 60);

/// File of the peaks of all stems.
const PEAKS: &str = "peaks.json";

/// A task that succeeded and whose stems have not expired.
struct Succeeded {
    task: StoredTask,
    outcome: StoredOutcome,
}

/// `GET /v1/tasks/{id}/stems/{stem}`: the stem, or a presigned link to it.
pub(in crate::api) async fn stem(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (v1, Path((id, stem))) = (app.v1()?, path?);
    let succeeded = find(v1, &client, &id).await?;
    let stem = succeeded.stem(&stem)?;
    let name = download_name(&succeeded.task, stem);
    let id = &succeeded.task.id;
    if let Some(link) = v1.store.presigned_file(id, &stem.file, &name, LINK_VALID).await? {
        let link = HeaderValue::try_from(link.as_str()).map_err(|_| Problem::internal())?;
        return Ok((StatusCode::FOUND, [(header::LOCATION, link)]).into_response());
    }
    let opened = serve(v1, id, &stem.file, &headers, Some(stem.size_bytes)).await?;
    // It existed: the sweep of an uploader with another retention removed it, or a person did.
    let mut response = opened.ok_or_else(Problem::expired)?;
    if let Ok(value) = HeaderValue::try_from(content_disposition(&name)) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// `GET /v1/tasks/{id}/peaks`: the peaks of all stems.
pub(in crate::api) async fn peaks(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let (v1, Path(id)) = (app.v1()?, id?);
    let succeeded = find(v1, &client, &id).await?;
    let opened = serve(v1, &succeeded.task.id, PEAKS, &HeaderMap::new(), None).await?;
    // A task has stems without them if they could not be made.
    opened.ok_or_else(Problem::not_found)
}

/// `GET /v1/tasks/{id}/previews/{stem}`: a small version of the stem.
pub(in crate::api) async fn preview(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (v1, Path((id, stem))) = (app.v1()?, path?);
    let succeeded = find(v1, &client, &id).await?;
    let file = format!("preview_{}.flac", succeeded.stem(&stem)?.name);
    let opened = serve(v1, &succeeded.task.id, &file, &headers, None).await?;
    opened.ok_or_else(Problem::not_found)
}

impl Succeeded {
    fn stem(&self, name: &str) -> Result<&StoredStem, Problem> {
        let kind = StemKind::parse(name).ok_or_else(Problem::not_found)?;
        let found = self.outcome.stems.iter().find(|stem| stem.name == kind);
        found.ok_or_else(Problem::not_found)
    }
}

async fn find(v1: &V1, client: &Client, id: &str) -> Result<Succeeded, Problem> {
    let id = TaskId::parse(id).map_err(|_| Problem::not_found())?;
    let (task, outcome) = tokio::try_join!(v1.store.task(&client.name, &id), v1.store.outcome(&id))?;
    let task = task.ok_or_else(Problem::not_found)?;
    let outcome = outcome.filter(|outcome| outcome.state == EndState::Succeeded);
    let outcome = outcome.ok_or_else(Problem::not_found)?;
    if !context(v1).has_stems(&outcome) {
        return Err(Problem::expired());
    }
    Ok(Succeeded { task, outcome })
}

/// The response with a file of a task, or the requested range of it; none if it does not exist. `size_bytes` is the size
/// of the file, if it is known.
async fn serve(
    v1: &V1,
    id: &TaskId,
    file: &str,
    headers: &HeaderMap,
    size_bytes: Option<u64>,
) -> Result<Option<Response>, Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let opened = match v1.store.open_file(id, file, text(header::RANGE)).await {
        Err(error) if error.is_unsatisfiable_range() => return Ok(Some(unsatisfiable(size_bytes))),
        opened => opened?,
    };
    let Some(mut opened) = opened else {
        return Ok(None);
    };
    let is_same = text(header::IF_RANGE).is_none_or(|etag| etag == opened.etag);
    if opened.content_range.is_some() && !is_same {
        match v1.store.open_file(id, file, None).await? {
            Some(complete) => opened = complete,
            None => return Ok(None),
        }
    }
    file_response(opened).map(Some)
}

fn file_response(file: StoredFile) -> Result<Response, Problem> {
    let status = match file.content_range {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    let mut response = (status, Body::from_stream(file.body)).into_response();
    let headers = response.headers_mut();
    let texts = [
        (header::CONTENT_TYPE, Some(file.content_type)),
        (header::ETAG, Some(file.etag).filter(|etag| !etag.is_empty())),
        (header::CONTENT_RANGE, file.content_range),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            let value = HeaderValue::try_from(value).map_err(|_| Problem::internal())?;
            headers.insert(name, value);
        }
    }
    headers.insert(header::CONTENT_LENGTH, file.length_bytes.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

fn unsatisfiable(size_bytes: Option<u64>) -> Response {
    let mut response = Problem::range_not_satisfiable().into_response();
    let range = size_bytes.map(|bytes| HeaderValue::try_from(format!("bytes */{bytes}")));
    if let Some(Ok(range)) = range {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// The name of a downloaded stem: that of the song, the stem and the format, such as `song_vocals.flac`.
fn download_name(task: &StoredTask, stem: &StoredStem) -> String {
    let song = task.input.file_name.as_deref().unwrap_or(task.id.as_str());
    let song = match song.rsplit_once('.') {
        Some((name, _)) if !name.is_empty() && task.input.file_name.is_some() => name,
        _ => song,
    };
    let extension = task.output.format.extension();
    format!("{song}_{}.{extension}", stem.name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use separation_contract::api_task::Output;

    use super::*;
    use crate::task_store::{InputSource, StoredInput};

    #[track_caller]
    fn check(file_name: Option<&str>, expected: &str) {
        let task = StoredTask {
            version: 1,
            id: TaskId::parse("t1").unwrap(),
            client: "acme".to_owned(),
            fingerprint: String::new(),
            created_at: 0,
            input: StoredInput {
                source: InputSource::File,
                file_name: file_name.map(str::to_owned),
                duration_seconds: None,
            },
            output: Output::default(),
            webhook_url: None,
            metadata: BTreeMap::new(),
            traceparent: String::new(),
        };
        let stem = StoredStem {
            name: StemKind::Vocals,
            file: "vocals.wav".to_owned(),
            content_type: "audio/wav".to_owned(),
            size_bytes: 1,
        };
        assert_eq!(download_name(&task, &stem), expected);
    }

    #[test]
    fn a_download_is_named_after_the_song() {
        check(Some("My Song.mp3"), "My Song_vocals.wav");
        check(Some("a.b.mp3"), "a.b_vocals.wav");
        check(Some("song"), "song_vocals.wav");
        check(Some(".mp3"), ".mp3_vocals.wav");
        check(None, "t1_vocals.wav");
    }
}
