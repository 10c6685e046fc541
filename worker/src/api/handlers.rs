//! The answers, one function for each kind of request.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::{StreamExt as _, TryStreamExt as _};
use separation_contract::message::TaskId;
use serde::Serialize;
use utoipa::ToSchema;

use super::app::App;
use super::problem::{Problem, ProblemBody};
use super::requests::{MAX_JSON_BYTES, is_type, parse_address, parse_generate};
use super::status::{Seen, TaskRecord, TaskStatus, decide};
use super::upload::Form;
use crate::clock::unix_time;
use crate::outbound::OutboundError;
use crate::telemetry::TraceContext;
use crate::work::{WorkError, chain};

/// The service answers
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always healthy
    #[schema(example = "healthy")]
    status: &'static str,
    /// Now, in seconds since 1970
    timestamp: u64,
}

/// A song to fetch
#[derive(Debug, ToSchema)]
#[allow(
    dead_code,
    reason = "described to callers; read by hand, for the texts of its errors"
)]
pub(super) struct Generate {
    /// Where the song is, http:// or https://
    #[schema(example = "https://example.com/song.mp3")]
    audio: String,
    /// Who is told when its stems are there, http:// or https://
    #[schema(example = "https://example.com/hook")]
    hook_url: String,
}

/// A song to separate
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "described to callers; read as it comes, never held")]
pub(super) struct Upload {
    /// The song
    #[schema(value_type = String, format = Binary)]
    audio: (),
    /// Who is told when its stems are there, http:// or https://
    hook_url: Option<String>,
}

/// A task that waits for its turn
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queued {
    /// For people
    #[schema(example = "Task has been queued for processing")]
    message: &'static str,
    /// Always queued
    #[schema(example = "queued")]
    status: &'static str,
    /// The task's name from now on
    #[schema(value_type = String, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    task_uuid: TaskId,
}

/// Says that the service answers.
#[utoipa::path(get, path = "/health", tag = "service", security(()),
    responses((status = 200, description = "The service answers", body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health {
        status: "healthy",
        timestamp: unix_time().as_secs(),
    })
}

/// Fetches a song and queues it.
#[utoipa::path(post, path = "/generate", tag = "tasks", request_body = Generate,
    params(("traceparent" = Option<String>, Header, description = "The W3C trace that the task belongs to")),
    responses(
        (status = 200, description = "The song is here and its task is queued", body = Queued),
        (status = 400, description = "The request is wrong, or the song cannot be fetched", body = ProblemBody),
        (status = 401, description = "Name or password is wrong", body = ProblemBody),
        (status = 500, description = "The task cannot be queued", body = ProblemBody),
        (status = 503, description = "Not available now; send the request again after Retry-After. With task_uuid in the body: the task may be queued, look up its status first", body = ProblemBody)))]
pub(super) async fn generate(State(app): State<App>, request: Request) -> Result<Json<Queued>, Problem> {
    let (parts, body) = request.into_parts();
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.as_bytes());
    if !is_type(content_type, "application/json") {
        // Told apart before the body is read, which may be anything.
        parse_generate(content_type, &[])?;
    }
    let body = tokio::time::timeout(app.settings.input.idle, to_bytes(body, MAX_JSON_BYTES)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "The body cannot be read")
                .because(format!("it broke off, or has more than {MAX_JSON_BYTES} bytes")));
        }
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "The request is too slow",
            ));
        }
    };
    let asked = parse_generate(content_type, &body)?;
    check_hook(&app, &asked.hook_url)?;
    let slot = app.intake.admit().await?;
    let download = app.outbound.get(&asked.audio, app.settings.input).await;
    let song = download.map_err(|error| fetch_problem(&error))?.into_stream();
    let song = song.map_err(|error| fetch_problem(&error)).boxed();
    let staged = app.intake.stage(slot, song).await?;
    let task_uuid = staged.queue(Some(asked.hook_url), trace(&parts.headers)).await?;
    Ok(queued(task_uuid))
}

/// Takes a song and queues it.
#[utoipa::path(post, path = "/tasks", tag = "tasks",
    request_body(content = Upload, content_type = "multipart/form-data"),
    params(("traceparent" = Option<String>, Header, description = "The W3C trace that the task belongs to")),
    responses(
        (status = 200, description = "The song is here and its task is queued", body = Queued),
        (status = 400, description = "The form is wrong", body = ProblemBody),
        (status = 401, description = "Name or password is wrong", body = ProblemBody),
        (status = 408, description = "The upload is too slow", body = ProblemBody),
        (status = 413, description = "The song is too large", body = ProblemBody),
        (status = 500, description = "The task cannot be queued", body = ProblemBody),
        (status = 503, description = "Not available now; send the request again after Retry-After. With task_uuid in the body: the task may be queued, look up its status first", body = ProblemBody)))]
pub(super) async fn upload(State(app): State<App>, request: Request) -> Result<Json<Queued>, Problem> {
    let trace = trace(request.headers());
    let mut slot = Some(app.intake.admit().await?);
    let mut form = Form::of(request, app.settings.input).await?;
    let (mut staged, mut hook_url) = (None, None);
    while let Some(field) = form.next().await? {
        match field.name() {
            "audio" => {
                let slot = slot.take().ok_or_else(|| twice("audio"))?;
                staged = Some(app.intake.stage(slot, field.song()).await?);
            }
            "hook_url" if hook_url.is_some() => return Err(twice("hook_url")),
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
                return Err(Problem::new(StatusCode::BAD_REQUEST, "Unknown field in the form")
                    .because("it may have audio and hook_url"));
            }
        }
    }
    let missing = || Problem::new(StatusCode::BAD_REQUEST, "Missing required field: audio");
    let staged = staged.ok_or_else(missing)?;
    Ok(queued(staged.queue(hook_url.flatten(), trace).await?))
}

/// Says what became of a task.
#[utoipa::path(get, path = "/tasks/{task_uuid}", tag = "tasks",
    params(("task_uuid" = String, Path, description = "The task's name, as it was given when it was queued")),
    responses(
        (status = 200, description = "What became of it", body = TaskStatus),
        (status = 401, description = "Name or password is wrong", body = ProblemBody),
        (status = 404, description = "There is no such task, or it is long over", body = ProblemBody),
        (status = 503, description = "It cannot be told now", body = ProblemBody)))]
pub(super) async fn status(
    State(app): State<App>,
    Path(task_uuid): Path<String>,
) -> Result<Json<TaskStatus>, Problem> {
    let task_uuid = TaskId::parse(&task_uuid).map_err(|_| Problem::not_found())?;
    let seen = look(&app, &task_uuid).await.map_err(|error| {
        tracing::warn!(task_uuid = %task_uuid, error = %error, "Cannot tell what became of a task");
        Problem::come_back("It cannot be told now; try again later")
    })?;
    decide(task_uuid, seen).map(Json).ok_or_else(Problem::not_found)
}

/// Looks at as much as is needed: what is over needs no broker.
async fn look(app: &App, task: &TaskId) -> Result<Seen, WorkError> {
    let finished = app.files.manifest(task).await?;
    let record = app.files.record(task).await?;
    let mut seen = Seen {
        finished,
        record: record.as_deref().and_then(TaskRecord::parse),
        ..Seen::default()
    };
    if seen.finished.is_some() {
        return Ok(seen);
    }
    seen.separated = app.files.is_separated(task).await?;
    let place = seen.record.and_then(|record| record.place());
    if let Some(place) = place.filter(|_| !seen.separated) {
        seen.progress = app.queue.progress(place.partition).await;
    }
    if seen.record.is_some_and(|record| record.is_behind(seen.progress)) {
        // What a processor and an uploader left may be newer than what was read before the progress.
        seen.separated = app.files.is_separated(task).await?;
        seen.finished = app.files.manifest(task).await?;
    }
    Ok(seen)
}

fn queued(task_uuid: TaskId) -> Json<Queued> {
    Json(Queued {
        message: "Task has been queued for processing",
        status: "queued",
        task_uuid,
    })
}

fn trace(headers: &HeaderMap) -> TraceContext {
    TraceContext::from_header(headers.get(TraceContext::HEADER).map(|value| value.as_bytes())).child()
}

/// A webhook that could never be called is refused at once; names are resolved when they are called.
fn check_hook(app: &App, hook_url: &str) -> Result<(), Problem> {
    app.outbound.check_url(hook_url).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "Invalid field: hook_url cannot be called",
        )
        .because(chain(&error))
    })
}

fn fetch_problem(error: &OutboundError) -> Problem {
    let details = chain(error);
    tracing::info!(error = details, "Audio not fetched");
    Problem::new(StatusCode::BAD_REQUEST, "Failed to fetch audio").because(details)
}

fn twice(field: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "A field is there twice").because(field)
}
