//! Error responses: `{"error": …}` with optional `details` and `task_uuid`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use separation_contract::message::TaskId;
use serde::Serialize;
use utoipa::ToSchema;

use super::requests::RequestError;
use super::upload::FormError;

/// `Retry-After` of a 503 response, in seconds: most songs are fetched in less.
const RETRY_AFTER_SECONDS: u64 = 5;

/// An error response.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: ProblemBody,
}

/// Error response
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Error message
    #[schema(example = "Failed to fetch audio")]
    error: String,
    /// Cause, if known
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "example.com answered 404")]
    details: Option<String>,
    /// UUID of the task, if it may be queued
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    task_uuid: Option<TaskId>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            body: ProblemBody {
                error: error.into(),
                details: None,
                task_uuid: None,
            },
        }
    }

    /// 400: the request is invalid.
    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.body.details = Some(details.into());
        self
    }

    /// Adds the UUID of a task that may be queued.
    pub(super) fn with_task(mut self, task_uuid: TaskId) -> Self {
        self.body.task_uuid = Some(task_uuid);
        self
    }

    /// 503 with `Retry-After`: the request is valid and may be sent again.
    pub(super) fn unavailable(error: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found")
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        match error {
            FormError::ContentType => Self::bad_request("Content-Type must be multipart/form-data"),
            FormError::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, "The upload is too slow"),
            FormError::TooLarge(max_bytes) => {
                let too_large = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "The audio is too large");
                too_large.with_details(format!("it is larger than {max_bytes} bytes"))
            }
            FormError::Invalid(details) => Self::bad_request("The form cannot be read").with_details(details),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"separation\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}
