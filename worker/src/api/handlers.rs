//! Request handlers, one function for each route.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use futures_util::{StreamExt as _, TryStreamExt as _};
use separation_contract::message::TaskId;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access_log::LoggedTask;
use super::app::App;
use super::clients::Client;
use super::intake::IfDropped;
use super::problem::{Problem, ProblemBody};
use super::requests::{MAX_JSON_BYTES, is_type, parse_address, parse_generate};
use super::status::{TaskEvidence, TaskRecord, TaskStatus, decide};
use super::upload::Form;
use crate::clock::unix_time;
use crate::outbound::OutboundError;
use crate::telemetry::TraceContext;
use crate::work::{WorkError, chain};

/// Health of the service
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always healthy
    #[schema(example = "healthy")]
    status: &'static str,
    /// Current time, Unix seconds
    timestamp: u64,
}

/// A song to fetch
#[derive(Debug, ToSchema)]
#[allow(
    dead_code,
    reason = "documents the schema; parsed by hand for specific error messages"
)]
pub(super) struct Generate {
    /// URL of the song, http:// or https://
    #[schema(example = "https://example.com/song.mp3")]
    audio: String,
    /// Webhook that is called when the task is done or failed, http:// or https://
    #[schema(example = "https://example.com/hook")]
    hook_url: String,
}

/// A song to separate
#[derive(Debug, ToSchema)]
#[allow(
    dead_code,
    reason = "documents the schema; the body is streamed, never held in memory"
)]
pub(super) struct Upload {
    /// The song
    #[schema(value_type = String, format = Binary)]
    audio: (),
    /// Webhook that is called when the task is done or failed, http:// or https://
    hook_url: Option<String>,
}

/// A queued task
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queued {
    /// Human-readable message
    #[schema(example = "Task has been queued for processing")]
    message: &'static str,
    /// Always queued
    #[schema(example = "queued")]
    status: &'static str,
    /// UUID of the task
    #[schema(value_type = String, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    task_uuid: TaskId,
}

/// A queued task, for the client and for the access log.
type QueuedResponse = (Extension<LoggedTask>, Json<Queued>);

/// Reports that the service is running.
#[utoipa::path(get, path = "/health", tag = "service", security(()),
    responses((status = 200, description = "The service is running", body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health {
        status: "healthy",
        timestamp: unix_time().as_secs(),
    })
}

/// Fetches a song and queues it.
#[utoipa::path(post, path = "/generate", tag = "tasks", request_body = Generate,
    params(("traceparent" = Option<String>, Header, description = "W3C trace context of the task")),
    responses(
        (status = 200, description = "The song is stored and its task is queued", body = Queued),
        (status = 400, description = "The request is invalid, or the song cannot be fetched", body = ProblemBody),
        (status = 401, description = "Username or password is missing or wrong", body = ProblemBody),
        (status = 500, description = "The task cannot be queued", body = ProblemBody),
        (status = 503, description = "Temporarily unavailable; retry after Retry-After seconds. If the body has task_uuid, the task may already be queued: read its status first", body = ProblemBody)))]
pub(super) async fn generate(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    request: Request,
) -> Result<QueuedResponse, Problem> {
    let (parts, body) = request.into_parts();
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.as_bytes());
    if !is_type(content_type, "application/json") {
        // Refuse another content type before reading the body.
        parse_generate(content_type, &[])?;
    }
    let body = tokio::time::timeout(app.settings.input.idle, to_bytes(body, MAX_JSON_BYTES)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let details = format!("it ended early, or is larger than {MAX_JSON_BYTES} bytes");
            return Err(Problem::bad_request("The body cannot be read").with_details(details));
        }
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "The request is too slow",
            ));
        }
    };
    let song_request = parse_generate(content_type, &body)?;
    check_hook(&app, &song_request.hook_url)?;
    let slot = app.intake.admit(&client.name).await?;
    let download = app.outbound.get(&song_request.audio, app.settings.input).await;
    let song = download.map_err(|error| fetch_problem(&error))?.into_stream();
    let song = song.map_err(|error| fetch_problem(&error)).boxed();
    let staged = app
        .intake
        .stage(slot, new_task_id(), song, IfDropped::Removed)
        .await?;
    let task_uuid = staged
        .queue(Some(song_request.hook_url), trace(&parts.headers))
        .await?;
    Ok(queued(task_uuid))
}

/// Receives a song and queues it.
#[utoipa::path(post, path = "/tasks", tag = "tasks",
    request_body(content = Upload, content_type = "multipart/form-data"),
    params(("traceparent" = Option<String>, Header, description = "W3C trace context of the task")),
    responses(
        (status = 200, description = "The song is stored and its task is queued", body = Queued),
        (status = 400, description = "The form is invalid", body = ProblemBody),
        (status = 401, description = "Username or password is missing or wrong", body = ProblemBody),
        (status = 408, description = "The upload is too slow", body = ProblemBody),
        (status = 413, description = "The song is too large", body = ProblemBody),
        (status = 500, description = "The task cannot be queued", body = ProblemBody),
        (status = 503, description = "Temporarily unavailable; retry after Retry-After seconds. If the body has task_uuid, the task may already be queued: read its status first", body = ProblemBody)))]
pub(super) async fn upload(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    request: Request,
) -> Result<QueuedResponse, Problem> {
    let trace = trace(request.headers());
    let mut slot = Some(app.intake.admit(&client.name).await?);
    let mut form = Form::from_request(request, app.settings.input).await?;
    let (mut staged, mut hook_url) = (None, None);
    while let Some(field) = form.next().await? {
        match field.name() {
            "audio" => {
                let slot = slot.take().ok_or_else(|| duplicate_field("audio"))?;
                let song = field.song().map_err(Problem::from).boxed();
                let staging = app.intake.stage(slot, new_task_id(), song, IfDropped::Removed);
                staged = Some(staging.await?);
            }
            "hook_url" if hook_url.is_some() => return Err(duplicate_field("hook_url")),
            "hook_url" => {
                let text = field.text().await?;
                hook_url = Some(if text.trim().is_empty() {
                    None
                } else {
                    let address = parse_address("hook_url", &text)?;
                    check_hook(&app, &address)?;
                    Some(address)
                });
            }
            _ => {
                let unknown = Problem::bad_request("Unknown field in the form");
                return Err(unknown.with_details("the fields are audio and hook_url"));
            }
        }
    }
    let missing = || Problem::bad_request("Missing required field: audio");
    let staged = staged.ok_or_else(missing)?;
    Ok(queued(staged.queue(hook_url.flatten(), trace).await?))
}

/// Returns the status of a task.
#[utoipa::path(get, path = "/tasks/{task_uuid}", tag = "tasks",
    params(("task_uuid" = String, Path, description = "UUID of the task, as returned when it was queued")),
    responses(
        (status = 200, description = "Status of the task", body = TaskStatus),
        (status = 401, description = "Username or password is missing or wrong", body = ProblemBody),
        (status = 404, description = "No such task, or its records have expired", body = ProblemBody),
        (status = 503, description = "Status temporarily unavailable; retry after Retry-After seconds", body = ProblemBody)))]
pub(super) async fn status(
    State(app): State<App>,
    Path(task_uuid): Path<String>,
) -> Result<Json<TaskStatus>, Problem> {
    let task_uuid = TaskId::parse(&task_uuid).map_err(|_| Problem::not_found())?;
    let evidence = read_status(&app, &task_uuid).await.map_err(|error| {
        tracing::warn!(task_uuid = %task_uuid, error = %error, "Cannot read the status of a task");
        Problem::unavailable("Status temporarily unavailable; retry later")
    })?;
    decide(task_uuid, evidence)
        .map(Json)
        .ok_or_else(Problem::not_found)
}

/// Reads only what the status needs: a finished task needs no broker.
async fn read_status(app: &App, task: &TaskId) -> Result<TaskEvidence, WorkError> {
    let finished = app.files.manifest(task).await?;
    let record = app.files.record(task).await?;
    if record.as_deref().is_some_and(TaskRecord::is_of_v1) {
        // It may be another client's: only v1 shows it.
        return Ok(TaskEvidence::default());
    }
    let mut evidence = TaskEvidence {
        finished,
        record: record.as_deref().and_then(TaskRecord::parse),
        ..TaskEvidence::default()
    };
    if evidence.finished.is_some() {
        return Ok(evidence);
    }
    evidence.separated = app.files.is_separated(task).await?;
    let position = evidence.record.and_then(|record| record.position());
    if let Some(position) = position.filter(|_| !evidence.separated) {
        evidence.progress = app.queue.progress(position.partition).await;
    }
    if evidence
        .record
        .is_some_and(|record| record.is_passed_by(evidence.progress))
    {
        // The stems and the manifest may have been written after the first read and before the offset was read.
        evidence.separated = app.files.is_separated(task).await?;
        evidence.finished = app.files.manifest(task).await?;
    }
    Ok(evidence)
}

fn queued(task_uuid: TaskId) -> QueuedResponse {
    let logged = Extension(LoggedTask(task_uuid.clone()));
    let body = Queued {
        message: "Task has been queued for processing",
        status: "queued",
        task_uuid,
    };
    (logged, Json(body))
}

fn new_task_id() -> TaskId {
    TaskId::parse(&Uuid::new_v4().to_string()).expect("a UUID is a valid task id")
}

fn trace(headers: &HeaderMap) -> TraceContext {
    TraceContext::from_header(headers.get(TraceContext::HEADER).map(|value| value.as_bytes())).child()
}

/// Refuses a webhook that could never be called; host names are resolved only when it is called.
fn check_hook(app: &App, hook_url: &str) -> Result<(), Problem> {
    app.outbound.check_url(hook_url).map_err(|error| {
        Problem::bad_request("Invalid field: hook_url cannot be called").with_details(chain(&error))
    })
}

fn fetch_problem(error: &OutboundError) -> Problem {
    let details = chain(error);
    tracing::info!(error = details, "Cannot fetch the audio");
    Problem::bad_request("Failed to fetch audio").with_details(details)
}

fn duplicate_field(field: &'static str) -> Problem {
    Problem::bad_request("A field is present twice").with_details(field)
}
