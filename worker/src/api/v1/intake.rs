//! Accepts tasks: identity, limit, mark and record. An accepted task is stored before the response, and taken to the
//! queue afterwards.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use separation_contract::message::TaskId;
use url::Url;

use super::super::clients::Client;
use super::identity::{id_of_key, new_id};
use super::problem::{FieldError, Problem};
use super::request::{NewInput, NewTask, idempotency_key};
use super::state::V1;
use crate::clock::unix_time;
use crate::faults;
use crate::storage::StorageError;
use crate::task_store::{Created, EndState, Incoming, InputSource, StoredInput, StoredTask, VERSION};
use crate::telemetry::TraceContext;

/// How often an Idempotency-Key can be used again after its task was erased.
const MAX_ERASED: u32 = 16;

/// `Retry-After` of a client with too many tasks, in seconds: a task takes minutes.
const LIMIT_RETRY_SECONDS: u64 = 30;

/// Longest file name, in bytes.
const MAX_FILE_NAME_BYTES: usize = 255;

/// The ID of a new task, and whether a repeated request has the same one: then its task is created under a claim.
pub(super) struct Identity {
    pub(super) id: TaskId,
    pub(super) is_repeatable: bool,
}

/// An accepted task.
pub(super) enum Accepted {
    New(StoredTask),
    /// An earlier request with the same content created it.
    Replayed(StoredTask),
}

/// The ID of a request's task: that of its upload, the one that its Idempotency-Key gives, or a new one.
pub(super) async fn identity(
    v1: &V1,
    client: &Client,
    headers: &HeaderMap,
    input: &NewInput,
) -> Result<Identity, Problem> {
    let of_request = |id| Identity {
        id,
        is_repeatable: true,
    };
    let key = match (idempotency_key(headers)?, input) {
        (None, NewInput::Upload(id)) => return Ok(of_request(id.clone())),
        (Some(_), NewInput::Upload(_)) => {
            let detail = "the id of the upload already identifies the task; fix: omit the Idempotency-Key";
            return Err(Problem::invalid_request(detail));
        }
        (None, _) => {
            return Ok(Identity {
                id: new_id(),
                is_repeatable: false,
            });
        }
        (Some(key), _) => key,
    };
    if !v1.has_conditional_writes().await? {
        let detail = "the object store of this API has no conditional writes, which an Idempotency-Key needs; fix: \
                      omit the header, or use a store that supports If-None-Match";
        return Err(Problem::invalid_request(detail));
    }
    for erased in 0..=MAX_ERASED {
        let id = id_of_key(&client.name, &key, erased);
        let outcome = v1.store.outcome(&id).await?;
        if outcome.is_none_or(|outcome| outcome.state != EndState::Erased) {
            return Ok(of_request(id));
        }
    }
    let detail =
        format!("more than {MAX_ERASED} tasks with this Idempotency-Key were deleted; use another one");
    Err(Problem::invalid_request(detail))
}

/// The task that an earlier request with the same ID created; none if there is none.
///
/// # Errors
/// 422 if that request had another content.
pub(super) async fn find_replayed(
    v1: &V1,
    client: &Client,
    id: &TaskId,
    fingerprint: &str,
) -> Result<Option<StoredTask>, Problem> {
    match v1.store.task(&client.name, id).await? {
        Some(task) if task.fingerprint != fingerprint => Err(Problem::idempotency_key_reused()),
        found => Ok(found),
    }
}

/// Accepts a task if its client may have a further one. It counts as open before the others are counted, so that
/// simultaneous requests never exceed the limit.
pub(super) async fn within_limit(
    v1: &V1,
    client: &Client,
    id: &TaskId,
    accepting: impl Future<Output = Result<Option<Accepted>, Problem>>,
) -> Result<Option<Accepted>, Problem> {
    let Some(limit) = client.limit else {
        return accepting.await;
    };
    let limit = limit as usize;
    v1.store.put_open(&client.name, id).await?;
    let accepted = match v1.store.count_open(&client.name, limit.saturating_add(1)).await {
        Ok(open) if open <= limit => accepting.await,
        Ok(_) => {
            let detail = format!(
                "{limit} tasks of `{}` have not ended, which is the limit",
                client.name
            );
            Err(Problem::too_many_requests(detail).retry_after(LIMIT_RETRY_SECONDS))
        }
        Err(error) => Err(error.into()),
    };
    if !matches!(accepted, Ok(Some(_)))
        && let Err(error) = close_unless_stored(v1, client, id).await
    {
        tracing::warn!(task_uuid = %id, %error, "A task that was not accepted counts as open for an hour");
    }
    accepted
}

/// Closes a task that was not accepted, unless a simultaneous request with the same ID created it.
async fn close_unless_stored(v1: &V1, client: &Client, id: &TaskId) -> Result<(), StorageError> {
    match v1.store.task(&client.name, id).await? {
        Some(_) => Ok(()),
        None => v1.store.close_open(&client.name, id).await,
    }
}

/// Refuses an upload that does not exist or is too large.
pub(super) async fn check_upload(
    v1: &V1,
    client: &Client,
    id: &TaskId,
    max_bytes: u64,
) -> Result<(), Problem> {
    let field = |detail: &str| Problem::invalid(vec![FieldError::new("/input/upload_id", detail)]);
    let outcome = v1.store.outcome(id).await?;
    // A file that was sent after the task was deleted has no task.
    let is_erased = outcome.is_some_and(|outcome| outcome.state == EndState::Erased);
    let size = v1.store.upload_size(&client.name, id).await?;
    match size.filter(|_| !is_erased) {
        None => Err(field(
            "no file was uploaded; send it to the URL of the upload first",
        )),
        Some(0) => Err(Problem::input_not_audio("the upload is empty")),
        Some(bytes) if bytes > max_bytes => {
            let detail = format!("the upload has {bytes} bytes; the limit is {max_bytes} bytes");
            Err(Problem::input_too_large(detail))
        }
        Some(_) => Ok(()),
    }
}

/// The record of a new task. `file_name` and `duration` are those of the song, if they are known.
pub(super) fn stored_task(
    client: &Client,
    id: TaskId,
    new: &NewTask,
    fingerprint: String,
    input: StoredInput,
    trace: TraceContext,
) -> StoredTask {
    StoredTask {
        version: VERSION,
        id,
        client: client.name.clone(),
        fingerprint,
        created_at: unix_time().as_secs(),
        input,
        output: new.output.clone(),
        webhook_url: new.webhook_url.clone(),
        metadata: new.metadata.clone(),
        traceparent: trace.to_string(),
    }
}

/// The song of a record.
pub(super) fn stored_input(
    input: &NewInput,
    file_name: Option<&str>,
    duration: Option<Duration>,
) -> StoredInput {
    let (source, name_in_link) = match input {
        NewInput::Url(url) => (InputSource::Url(url.clone()), name_in_link(url)),
        NewInput::Upload(_) => (InputSource::Upload, None),
        NewInput::File => (InputSource::File, None),
    };
    StoredInput {
        source,
        file_name: name_in_link.or_else(|| clean_file_name(file_name?)),
        duration_seconds: duration.map(|duration| duration.as_secs_f64()),
    }
}

/// Stores that a task is to be queued: then its record, once it is stored, is always found, and what is left of an
/// interrupted request is removed.
pub(super) async fn announce(v1: &V1, task: &StoredTask) -> Result<Incoming, Problem> {
    let incoming = Incoming::of(task);
    v1.store.put_incoming(&incoming).await?;
    faults::point("incoming_stored").await;
    Ok(incoming)
}

/// Stores the record of an announced task, and takes it to the queue in the background. None if the earlier task with
/// its ID was erased meanwhile: the next request gets another ID.
pub(super) async fn create(
    v1: &V1,
    client: &Client,
    identity: &Identity,
    task: StoredTask,
    incoming: Incoming,
) -> Result<Option<Accepted>, Problem> {
    let created = v1.store.create_task(&task).await?;
    faults::point("record_created").await;
    let ended = match created {
        Created::New if !identity.is_repeatable => None,
        _ => v1.store.outcome(&task.id).await?,
    };
    let is_erased = ended
        .as_ref()
        .is_some_and(|outcome| outcome.state == EndState::Erased);
    match created {
        Created::New if is_erased => {
            v1.store.delete_task(&client.name, &task.id).await?;
            Ok(None)
        }
        Created::New => {
            v1.queuer.start(incoming);
            Ok(Some(Accepted::New(task)))
        }
        Created::Exists => {
            let existing = find_replayed(v1, client, &task.id, &task.fingerprint).await?;
            if ended.is_some() {
                v1.store.close_open(&client.name, &task.id).await?;
            }
            v1.queuer.start(incoming);
            Ok(existing.filter(|_| !is_erased).map(Accepted::Replayed))
        }
    }
}

/// The trace of a request's task.
pub(super) fn trace(headers: &HeaderMap) -> TraceContext {
    TraceContext::from_header(headers.get(TraceContext::HEADER).map(HeaderValue::as_bytes)).child()
}

/// The last part of a link's path, if it can be the name of a file.
fn name_in_link(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let last = url.path_segments()?.next_back()?;
    clean_file_name(&percent_decode_str(last).decode_utf8().ok()?)
}

/// A file name without directories and control characters; none if nothing is left.
fn clean_file_name(name: &str) -> Option<String> {
    let name = name.rsplit(['/', '\\']).next()?;
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    let name = &name[..name.floor_char_boundary(MAX_FILE_NAME_BYTES)];
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_song_is_named_by_its_file_or_its_link() {
        let name = |input, file_name| stored_input(&input, file_name, None).file_name;
        let link = |url: &str| name(NewInput::Url(url.to_owned()), None);
        assert_eq!(
            link("https://a.example/x/My%20Song.mp3?token=1").as_deref(),
            Some("My Song.mp3")
        );
        for unnamed in [
            "https://a.example",
            "https://a.example/x/",
            "https://a.example/%FF",
        ] {
            assert_eq!(link(unnamed), None, "{unnamed}");
        }
        let file = |file_name| name(NewInput::File, file_name);
        assert_eq!(file(Some("a b.mp3")).as_deref(), Some("a b.mp3"));
        assert_eq!(file(Some("C:\\songs\\a.mp3")).as_deref(), Some("a.mp3"));
        assert_eq!(file(Some("../../etc/a\r\n.mp3")).as_deref(), Some("a.mp3"));
        assert_eq!(file(Some("../")), None);
        assert_eq!(file(None), None);
        assert!(file(Some(&"é".repeat(200))).is_some_and(|name| name.len() <= MAX_FILE_NAME_BYTES));
    }
}
