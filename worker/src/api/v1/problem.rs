//! Error responses of v1: `application/problem+json` (RFC 9457) with a stable `code`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// `Retry-After` of 429 and 503, in seconds, unless the caller knows better: most songs are received in less.
const RETRY_AFTER_SECONDS: u64 = 5;

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Problem {
    code: ProblemCode,
    detail: Option<String>,
    errors: Vec<FieldError>,
    /// None: [`RETRY_AFTER_SECONDS`] where the status needs it.
    retry_after_seconds: Option<u64>,
}

/// Reason of an error response; later versions may add reasons
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ProblemCode {
    InvalidRequest,
    Unauthenticated,
    Forbidden,
    UrlNotAllowed,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    IdempotencyInProgress,
    TaskAlreadyFinished,
    Expired,
    InputTooLarge,
    UnsupportedContentType,
    RangeNotSatisfiable,
    InputNotAudio,
    IdempotencyKeyReused,
    TooManyRequests,
    Internal,
    Unavailable,
}

/// One error of the request's JSON body
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::api) struct FieldError {
    /// JSON pointer (RFC 6901) to the value; empty for the complete body
    #[schema(example = "/output/format")]
    pub(in crate::api) pointer: String,
    /// The error and the allowed values
    #[schema(example = "must be one of wav, flac, mp3")]
    pub(in crate::api) detail: String,
}

/// Error response (RFC 9457)
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(in crate::api) struct ProblemBody {
    /// Always about:blank: `code` identifies the error
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// Summary of the code
    #[schema(example = "Invalid request")]
    title: &'static str,
    /// HTTP status
    #[schema(example = 400, minimum = 400, maximum = 599)]
    status: u16,
    /// Reason, for programs
    code: ProblemCode,
    /// Cause of this occurrence, for people
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// The errors of the JSON body, if there are any
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl ProblemCode {
    /// The text of `code`.
    pub(super) fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a unit variant always serializes");
        name.as_str().unwrap_or_default().to_owned()
    }

    /// The HTTP status and the title.
    pub(in crate::api) fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "Invalid request"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "Not authenticated"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::UrlNotAllowed => (StatusCode::FORBIDDEN, "This URL may not be called"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "The request is too slow"),
            Self::IdempotencyInProgress => (StatusCode::CONFLICT, "The Idempotency-Key is in use"),
            Self::TaskAlreadyFinished => (StatusCode::CONFLICT, "The task has already finished"),
            Self::Expired => (StatusCode::GONE, "The stems have expired"),
            Self::InputTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The input is too large"),
            Self::UnsupportedContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Content-Type"),
            Self::RangeNotSatisfiable => (
                StatusCode::RANGE_NOT_SATISFIABLE,
                "The range is outside of the file",
            ),
            Self::InputNotAudio => (StatusCode::UNPROCESSABLE_ENTITY, "The input is not audio"),
            Self::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The Idempotency-Key was used for another request",
            ),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable"),
        }
    }
}

impl FieldError {
    /// An error of the value at a JSON pointer.
    pub(in crate::api) fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

impl Problem {
    /// A problem without a detail.
    pub(in crate::api) fn new(code: ProblemCode) -> Self {
        Self {
            code,
            detail: None,
            errors: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// A problem with its cause.
    pub(in crate::api) fn with_detail(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(code)
        }
    }

    /// 400: the JSON body has errors.
    pub(in crate::api) fn invalid(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            ..Self::new(ProblemCode::InvalidRequest)
        }
    }

    /// 400: the request is invalid outside of the JSON body: headers, path, query, form.
    pub(in crate::api) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::InvalidRequest, detail)
    }

    /// 401: no API key, or not a valid one.
    pub(in crate::api) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::Unauthenticated, detail)
    }

    /// 403: the origin or the host name of the request is not allowed.
    pub(in crate::api) fn forbidden(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::Forbidden, detail)
    }

    /// 403: URLs of the JSON body that may not be called.
    pub(in crate::api) fn url_not_allowed(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            ..Self::new(ProblemCode::UrlNotAllowed)
        }
    }

    /// 404: no such path, or no such task of this client.
    pub(in crate::api) fn not_found() -> Self {
        Self::new(ProblemCode::NotFound)
    }

    /// 405.
    pub(in crate::api) fn method_not_allowed() -> Self {
        Self::new(ProblemCode::MethodNotAllowed)
    }

    /// 408: the client sends too slowly.
    pub(in crate::api) fn request_timeout() -> Self {
        Self::new(ProblemCode::RequestTimeout)
    }

    /// 409: another request with this Idempotency-Key is being answered.
    pub(in crate::api) fn idempotency_in_progress() -> Self {
        let detail = "another request with this Idempotency-Key is being answered; retry later";
        Self::with_detail(ProblemCode::IdempotencyInProgress, detail)
    }

    /// 409: the task has succeeded or failed.
    pub(in crate::api) fn task_already_finished(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::TaskAlreadyFinished, detail)
    }

    /// 410: the stems were deleted after their retention.
    pub(in crate::api) fn expired() -> Self {
        Self::new(ProblemCode::Expired)
    }

    /// 413: the body or the song is larger or longer than the limit.
    pub(in crate::api) fn input_too_large(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::InputTooLarge, detail)
    }

    /// 415: another `Content-Type` than those in the detail.
    pub(in crate::api) fn unsupported_content_type(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::UnsupportedContentType, detail)
    }

    /// 416; the caller adds `Content-Range`.
    pub(in crate::api) fn range_not_satisfiable() -> Self {
        Self::new(ProblemCode::RangeNotSatisfiable)
    }

    /// 422: the input is not audio, by its content.
    pub(in crate::api) fn input_not_audio(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::InputNotAudio, detail)
    }

    /// 422: the Idempotency-Key belongs to a request with another content.
    pub(in crate::api) fn idempotency_key_reused() -> Self {
        Self::new(ProblemCode::IdempotencyKeyReused)
    }

    /// 429 with `Retry-After`.
    pub(in crate::api) fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::TooManyRequests, detail)
    }

    /// 500: an error of this service, which its log describes.
    pub(in crate::api) fn internal() -> Self {
        Self::new(ProblemCode::Internal)
    }

    /// 503 with `Retry-After`: the request is valid and may be sent again.
    pub(in crate::api) fn unavailable(detail: impl Into<String>) -> Self {
        Self::with_detail(ProblemCode::Unavailable, detail)
    }

    /// Sets the seconds of `Retry-After`.
    #[must_use]
    pub(in crate::api) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> ProblemCode {
        self.code
    }

    /// The pointers of the errors of the JSON body.
    #[cfg(test)]
    pub(super) fn pointers(&self) -> Vec<&str> {
        self.errors.iter().map(|error| error.pointer.as_str()).collect()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, title) = self.code.status();
        let body = ProblemBody {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            code: self.code,
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        // Not Basic: a browser would ask for a username and a password, and the page has its own form.
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"separation\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        let is_temporary = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let default = is_temporary.then_some(RETRY_AFTER_SECONDS);
        if let Some(seconds) = self.retry_after_seconds.or(default) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    async fn check(problem: Problem, status: u16, headers: &[(&str, &str)], body: Value) {
        let response = problem.into_response();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        for name in ["www-authenticate", "retry-after"] {
            let expected = headers.iter().find(|(expected, _)| *expected == name);
            let value = response
                .headers()
                .get(name)
                .map(|value| value.to_str().expect("ASCII"));
            assert_eq!(value, expected.map(|(_, value)| *value), "{name}");
        }
        let read = to_bytes(response.into_body(), 10_000).await.expect("a body");
        assert_eq!(serde_json::from_slice::<Value>(&read).expect("JSON"), body);
    }

    #[tokio::test]
    async fn a_problem_has_the_layout_of_rfc_9457() {
        let errors = vec![FieldError::new("/input", "is required")];
        check(
            Problem::invalid(errors),
            400,
            &[],
            json!({
                "type": "about:blank", "title": "Invalid request", "status": 400, "code": "invalid_request",
                "errors": [{"pointer": "/input", "detail": "is required"}]
            }),
        )
        .await;
        check(
            Problem::unauthenticated("no API key"),
            401,
            &[("www-authenticate", "Bearer realm=\"separation\"")],
            json!({
                "type": "about:blank", "title": "Not authenticated", "status": 401, "code": "unauthenticated",
                "detail": "no API key"
            }),
        )
        .await;
    }

    #[tokio::test]
    async fn a_temporary_problem_has_the_time_of_the_next_try() {
        let body = |title, status, code| json!({"type": "about:blank", "title": title, "status": status, "code": code, "detail": "x"});
        let unavailable = body("Temporarily unavailable", 503, "unavailable");
        check(
            Problem::unavailable("x"),
            503,
            &[("retry-after", "5")],
            unavailable,
        )
        .await;
        let limited = Problem::too_many_requests("x").retry_after(30);
        let body = body("Too many requests", 429, "too_many_requests");
        check(limited, 429, &[("retry-after", "30")], body).await;
        let body = json!({
            "type": "about:blank", "title": "The Idempotency-Key is in use", "status": 409,
            "code": "idempotency_in_progress",
            "detail": "another request with this Idempotency-Key is being answered; retry later"
        });
        let in_progress = Problem::idempotency_in_progress().retry_after(7);
        check(in_progress, 409, &[("retry-after", "7")], body).await;
    }
}
