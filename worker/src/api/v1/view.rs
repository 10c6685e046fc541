//! A task as its client sees it, derived from stored objects and the processors' committed offset. No I/O and no clock.
//!
//! The first row that matches decides. `offset` is the task's position in its partition, `committed` the processors'
//! committed offset there.
//!
//! | outcome | stems staged | position in the queue | percent | state | stage | also |
//! |---|---|---|---|---|---|---|
//! | erased | any | any | any | no such task | | |
//! | succeeded | any | any | any | succeeded | | stems until they expire |
//! | failed | any | any | any | failed | | error |
//! | canceled | any | any | any | cancelled | | |
//! | none | yes | any | any | running | uploading | |
//! | none | no | none, and the song is a link or an upload | any | queued | fetching | |
//! | none | no | none, and the song was in the request | any | queued | | |
//! | none | no | `committed` unknown | any | queued | | |
//! | none | no | `committed` < `offset` | any | queued | | queue_position |
//! | none | no | `committed` = `offset`, not begun | any | queued | | queue_position 0 |
//! | none | no | `committed` = `offset`, begun | none | running | fetching | started_at |
//! | none | no | `committed` = `offset`, begun | known | running | separating | started_at, progress |
//! | none | no | `committed` > `offset` | any | running | uploading | |

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use separation_contract::api_task::{FailureCode, Output, StemKind};
use separation_contract::message::TaskId;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use url::Url;
use utoipa::ToSchema;

use super::super::status::TaskEvidence;
use super::schemas;
use crate::clock::rfc3339;
use crate::model::hexadecimal;
use crate::task_store::{
    DeliveryState, EndState, InputSource, StoredError, StoredOutcome, StoredStem, StoredTask, WebhookReport,
};

/// Hexadecimal digits of an ETag: 128 bits of a SHA-256.
const ETAG_DIGITS: usize = 32;

/// `Cache-Control`: only the client stores a response, and uses it again only after a check of its ETag.
const CACHE_CONTROL: &str = "private, no-cache";

/// The lowest percentage that an estimate of the remaining time is based on.
const MIN_ESTIMATE_PERCENT: u8 = 2;

/// Stored objects and the evidence about a task.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct TaskSources<'s> {
    pub(in crate::api) task: &'s StoredTask,
    pub(in crate::api) outcome: Option<&'s StoredOutcome>,
    pub(in crate::api) webhook: Option<&'s WebhookReport>,
    /// Needed only without an outcome; `finished` is not used.
    pub(in crate::api) evidence: &'s TaskEvidence,
}

/// The settings and the time that decide how a task is shown.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct ViewContext<'v> {
    /// Unix seconds.
    pub(in crate::api) now: u64,
    /// How long stems are kept; none is forever.
    pub(in crate::api) stems_retention: Option<Duration>,
    /// URL of the API as its clients reach it; without it links are paths.
    pub(in crate::api) public_url: Option<&'v Url>,
}

/// A task
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Task)]
pub(in crate::api) struct TaskView {
    /// UUID of the task
    #[schema(value_type = String, format = Uuid, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    id: TaskId,
    /// State; goes from queued over running to one of the others
    pub(in crate::api) state: TaskState,
    /// Current step: fetching (before the task is queued, or by its worker), separating or uploading. Later
    /// versions may add stages
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, example = "separating")]
    stage: Option<TaskStage>,
    /// While queued: number of tasks before it in its partition, if known
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    queue_position: Option<u64>,
    /// While separating: progress
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ProgressView)]
    progress: Option<ProgressView>,
    /// When it was accepted
    #[schema(format = DateTime, example = "2026-01-31T12:00:00Z")]
    created_at: String,
    /// When its last attempt began, if known
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime, example = "2026-01-31T12:00:05Z")]
    started_at: Option<String>,
    /// When it succeeded, failed or was canceled
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime, example = "2026-01-31T12:01:00Z")]
    finished_at: Option<String>,
    /// If succeeded: when its stems are deleted; absent if they are kept
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime, example = "2026-02-07T12:01:00Z")]
    expires_at: Option<String>,
    /// The song
    input: InputView,
    /// The requested stems
    #[schema(value_type = schemas::OutputSchema)]
    output: Output,
    /// If succeeded, until they expire: links to the stems. They need the API key
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stems: Vec<StemView>,
    /// If failed: the reason
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ErrorView)]
    error: Option<ErrorView>,
    /// If a webhook was requested: its delivery
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = WebhookView)]
    webhook: Option<WebhookView>,
    /// The client's own data, as posted
    metadata: BTreeMap<String, String>,
}

/// State of a task
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum TaskState {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// Current step of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum TaskStage {
    Fetching,
    Separating,
    Uploading,
}

/// Progress of a separation
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Progress)]
struct ProgressView {
    /// Part of the song that is separated
    #[schema(minimum = 0, maximum = 100, example = 40)]
    percent: u8,
    /// Estimate of the remaining time in seconds, if there is one
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 21)]
    eta_seconds: Option<u64>,
}

/// The song of a task
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Input)]
struct InputView {
    /// Its name at the client, if known
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "song.mp3")]
    file_name: Option<String>,
    /// Its length, if known
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 243.5)]
    duration_seconds: Option<f64>,
}

/// A finished stem
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Stem)]
struct StemView {
    /// The stem
    #[schema(value_type = schemas::StemName)]
    name: StemKind,
    /// Link to it; only a path if the API does not know its public URL
    #[schema(
        example = "https://separation.example/v1/tasks/0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf/stems/vocals"
    )]
    url: String,
    /// MIME type
    #[schema(example = "audio/flac")]
    content_type: String,
    /// Size in bytes
    #[schema(example = 21168044)]
    size_bytes: u64,
}

/// Reason of a failure
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TaskError)]
struct ErrorView {
    /// For programs: input_unreadable, input_too_long, input_fetch_failed, input_missing, worker_crashed, timed_out,
    /// not_processed or internal. Later versions may add codes
    #[schema(value_type = String, example = "input_unreadable")]
    code: FailureCode,
    /// For people; one text for each code
    #[schema(example = "the file is not audio, or is damaged")]
    message: &'static str,
}

/// Delivery of a webhook
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookView {
    /// pending, also before the task has ended; delivered or failed
    #[schema(value_type = schemas::WebhookStateName)]
    state: DeliveryState,
    /// Number of attempts so far
    #[schema(example = 1)]
    attempts: u32,
    /// When the last attempt began
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime, example = "2026-01-31T12:01:01Z")]
    last_attempt_at: Option<String>,
}

/// The row of the table for a task without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unfinished {
    state: TaskState,
    stage: Option<TaskStage>,
    queue_position: Option<u64>,
    started_at: Option<u64>,
    percent: Option<u8>,
}

impl TaskView {
    /// The view of a task; none if it was erased.
    pub(in crate::api) fn new(sources: TaskSources<'_>, context: ViewContext<'_>) -> Option<Self> {
        let TaskSources {
            task,
            outcome,
            webhook,
            evidence,
        } = sources;
        let view = Self {
            id: task.id.clone(),
            state: TaskState::Queued,
            stage: None,
            queue_position: None,
            progress: None,
            created_at: rfc3339(task.created_at),
            started_at: None,
            finished_at: None,
            expires_at: None,
            input: InputView {
                file_name: task.input.file_name.clone(),
                duration_seconds: task.input.duration_seconds,
            },
            output: task.output.clone(),
            stems: Vec::new(),
            error: None,
            webhook: task.webhook_url.as_ref().map(|_| WebhookView::new(webhook)),
            metadata: task.metadata.clone(),
        };
        match outcome {
            Some(outcome) => view.finished(outcome, context),
            None => Some(view.unfinished(Unfinished::of(task, evidence), context.now)),
        }
    }

    fn finished(self, outcome: &StoredOutcome, context: ViewContext<'_>) -> Option<Self> {
        let state = match outcome.state {
            EndState::Succeeded => TaskState::Succeeded,
            EndState::Failed => TaskState::Failed,
            EndState::Cancelled => TaskState::Cancelled,
            EndState::Erased => return None,
        };
        let stems = match context.has_stems(outcome) {
            true => outcome.stems.iter(),
            false => [].iter(),
        };
        let stems = stems.map(|stem| StemView::new(&self.id, stem, context)).collect();
        Some(Self {
            state,
            started_at: outcome.started_at.map(rfc3339),
            finished_at: Some(rfc3339(outcome.finished_at)),
            expires_at: context.expires_at(outcome).map(rfc3339),
            stems,
            error: outcome.error.as_ref().map(ErrorView::new),
            ..self
        })
    }

    fn unfinished(self, unfinished: Unfinished, now: u64) -> Self {
        let Unfinished {
            state,
            stage,
            queue_position,
            started_at,
            percent,
        } = unfinished;
        Self {
            state,
            stage,
            queue_position,
            progress: percent.map(|percent| ProgressView::new(percent, started_at, now)),
            started_at: started_at.map(rfc3339),
            ..self
        }
    }

    /// The JSON of responses and webhooks.
    pub(in crate::api) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialize")
    }

    /// A response with the task and its ETag.
    pub(in crate::api) fn response(&self, status: StatusCode) -> Response {
        let json = self.to_json();
        let etag = etag(&json);
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL)),
            (header::ETAG, etag),
        ];
        (status, headers, json).into_response()
    }

    /// The response to a GET: 304 if the request's `If-None-Match` names the task's ETag.
    pub(in crate::api) fn response_if_changed(&self, request: &HeaderMap) -> Response {
        let etag = etag(&self.to_json());
        if matches_etag(request, &etag) {
            let headers = [
                (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL)),
                (header::ETAG, etag),
            ];
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        self.response(StatusCode::OK)
    }
}

impl ViewContext<'_> {
    /// When the stems of a task that succeeded are deleted, Unix seconds.
    pub(in crate::api) fn expires_at(&self, outcome: &StoredOutcome) -> Option<u64> {
        let retention = self.stems_retention?;
        let succeeded = outcome.state == EndState::Succeeded;
        succeeded.then(|| outcome.finished_at.saturating_add(retention.as_secs()))
    }

    /// Whether the stems of an outcome can still be downloaded.
    pub(in crate::api) fn has_stems(&self, outcome: &StoredOutcome) -> bool {
        let expired = self.expires_at(outcome).is_some_and(|at| at <= self.now);
        outcome.state == EndState::Succeeded && !expired
    }

    /// The link to a task.
    pub(in crate::api) fn task_link(&self, id: &TaskId) -> String {
        let base = self.public_url.map_or("", Url::as_str);
        format!("{}/v1/tasks/{id}", base.trim_end_matches('/'))
    }
}

impl Unfinished {
    fn of(task: &StoredTask, evidence: &TaskEvidence) -> Self {
        let at = |state, stage, queue_position| Self {
            state,
            stage,
            queue_position,
            started_at: None,
            percent: None,
        };
        let uploading = at(TaskState::Running, Some(TaskStage::Uploading), None);
        if evidence.separated {
            return uploading;
        }
        let position = evidence.record.and_then(|record| record.position());
        let Some(position) = position else {
            let stage = match task.input.source {
                InputSource::Url(_) | InputSource::Upload => Some(TaskStage::Fetching),
                InputSource::File => None,
            };
            return at(TaskState::Queued, stage, None);
        };
        let progress = evidence.progress.unwrap_or_default();
        let before = progress
            .committed
            .and_then(|committed| position.offset.checked_sub(committed));
        match before {
            None => at(TaskState::Queued, None, None),
            Some(..0) => uploading,
            Some(0) if progress.begun => {
                let stage = match progress.percent {
                    None => TaskStage::Fetching,
                    Some(_) => TaskStage::Separating,
                };
                Self {
                    started_at: progress.start,
                    percent: progress.percent,
                    ..at(TaskState::Running, Some(stage), None)
                }
            }
            Some(before) => at(TaskState::Queued, None, u64::try_from(before).ok()),
        }
    }
}

impl ProgressView {
    fn new(percent: u8, started_at: Option<u64>, now: u64) -> Self {
        let percent = percent.min(100);
        let elapsed = started_at.map(|started_at| now.saturating_sub(started_at));
        let elapsed = elapsed.filter(|_| percent >= MIN_ESTIMATE_PERCENT);
        let remaining_percent = u64::from(100 - percent);
        Self {
            percent,
            eta_seconds: elapsed
                .map(|elapsed| elapsed.saturating_mul(remaining_percent) / u64::from(percent)),
        }
    }
}

impl StemView {
    fn new(id: &TaskId, stem: &StoredStem, context: ViewContext<'_>) -> Self {
        Self {
            name: stem.name,
            url: format!("{}/stems/{}", context.task_link(id), stem.name),
            content_type: stem.content_type.clone(),
            size_bytes: stem.size_bytes,
        }
    }
}

impl ErrorView {
    /// Without the stored message, which may name paths, hosts or addresses of the service: it is for its log.
    fn new(error: &StoredError) -> Self {
        let code = error.code;
        let message = match code {
            FailureCode::InputUnreadable => "the file is not audio, or is damaged",
            FailureCode::InputTooLong => "the song is longer than this service accepts",
            FailureCode::InputFetchFailed => "the link or the upload could not be fetched",
            FailureCode::InputMissing => "the song was deleted before it was separated",
            FailureCode::WorkerCrashed => "several workers ended while they processed the song",
            FailureCode::TimedOut => "the task took longer than its deadline",
            FailureCode::NotProcessed => "no worker processed the task; post the song again",
            FailureCode::Internal => "an error of the service; post the song again",
        };
        Self { code, message }
    }
}

impl WebhookView {
    /// Without a report, no attempt was made yet.
    fn new(report: Option<&WebhookReport>) -> Self {
        Self {
            state: report.map_or(DeliveryState::Pending, |report| report.state),
            attempts: report.map_or(0, |report| report.attempts),
            last_attempt_at: report.and_then(|report| report.last_attempt_at).map(rfc3339),
        }
    }
}

fn etag(json: &[u8]) -> HeaderValue {
    let digits = &hexadecimal(&Sha256::digest(json))[..ETAG_DIGITS];
    HeaderValue::from_str(&format!("\"{digits}\"")).expect("quotes and hexadecimal digits are a valid header")
}

/// Whether `If-None-Match` has this ETag, by the weak comparison of RFC 9110.
fn matches_etag(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = request.get_all(header::IF_NONE_MATCH).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim())
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests;
