//! The operations of the OpenAPI document, without their error responses, which `openapi` adds.
#![allow(dead_code, reason = "the functions exist for their documentation only")]

use super::schemas::{
    NewSessionSchema, NewTaskFormSchema, NewTaskSchema, PeaksSchema, StemName, UploadSchema,
};
use super::session::SessionView;
use super::view::TaskView;

/// Creates a place for a file.
///
/// Send the file to the URL in the response, then create the task with the id. A service whose S3 server clients cannot
/// reach answers 404. A client may have 100 uploads that have no task.
#[utoipa::path(post, path = "/v1/uploads", tag = "tasks",
    responses((status = 201, description = "The request that sends the file", body = UploadSchema)))]
pub(super) fn create_upload() {}

/// Creates a task.
///
/// The song is a link, an upload or the part `file` of a form. A link is fetched after the response. A repeated request
/// with the same Idempotency-Key creates no second task.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks",
    params(
        ("Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "A new value for each task, such as a UUID; refused if the store has no conditional writes"),
        ("traceparent" = Option<String>, Header, nullable = false, description = "W3C trace context of the task")),
    request_body(content(
        (NewTaskSchema = "application/json"),
        (NewTaskFormSchema = "multipart/form-data"))),
    responses((status = 201, description = "The task is stored and will be processed", body = TaskView,
        headers(
            ("Location" = String, description = "The task"),
            ("ETag" = String, description = "Changes with the task"),
            ("Idempotency-Replayed" = bool, description = "true if an earlier request with this Idempotency-Key created the task")))))]
pub(super) fn create_task() {}

/// Returns a task.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks",
    params(
        ("id" = String, Path, description = "UUID of the task"),
        ("If-None-Match" = Option<String>, Header, nullable = false, description = "ETag of an earlier response")),
    responses(
        (status = 200, description = "The task", body = TaskView, headers(("ETag" = String, description = "Changes with the task"))),
        (status = 304, description = "Unchanged since the response with this ETag",
            headers(("ETag" = String, description = "That of the request")))))]
pub(super) fn read_task() {}

/// Cancels a task.
///
/// A queued task never starts; a running one stops within 10 seconds. Canceling again changes nothing.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks",
    params(("id" = String, Path, description = "UUID of the task")),
    responses((status = 200, description = "The canceled task", body = TaskView,
        headers(("ETag" = String, description = "Changes with the task")))))]
pub(super) fn cancel_task() {}

/// Erases a task.
///
/// Cancels it and deletes its song, its stems and its record.
#[utoipa::path(delete, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "UUID of the task")),
    responses((status = 204, description = "Nothing of the task is left")))]
pub(super) fn delete_task() {}

/// Returns a stem.
#[utoipa::path(get, path = "/v1/tasks/{id}/stems/{stem}", tag = "stems",
    params(
        ("id" = String, Path, description = "UUID of the task"),
        ("stem" = inline(StemName), Path, description = "The stem"),
        ("Range" = Option<String>, Header, nullable = false, description = "One range of bytes; others are ignored"),
        ("If-Range" = Option<String>, Header, nullable = false, description = "ETag that the range is of")),
    responses(
        (status = 200, description = "The complete file", content(("audio/wav"), ("audio/flac"), ("audio/mpeg")),
            headers(
                ("Content-Disposition" = String, description = "With a name for the file"),
                ("ETag" = String, description = "For If-Range"),
                ("Accept-Ranges" = String, description = "bytes"))),
        (status = 206, description = "The range", content(("audio/wav"), ("audio/flac"), ("audio/mpeg")),
            headers(("Content-Range" = String, description = "The range and the size of the file"))),
        (status = 302, description = "The stem is at a presigned URL for a short time",
            headers(("Location" = String, description = "The presigned URL")))))]
pub(super) fn read_stem() {}

/// Returns the peaks of the waveforms of all stems.
#[utoipa::path(get, path = "/v1/tasks/{id}/peaks", tag = "stems",
    params(("id" = String, Path, description = "UUID of the task")),
    responses((status = 200, description = "The peaks", body = PeaksSchema)))]
pub(super) fn read_peaks() {}

/// Returns a preview of a stem: a small mono FLAC file of the same length.
#[utoipa::path(get, path = "/v1/tasks/{id}/previews/{stem}", tag = "stems",
    params(
        ("id" = String, Path, description = "UUID of the task"),
        ("stem" = inline(StemName), Path, description = "The stem"),
        ("Range" = Option<String>, Header, nullable = false, description = "One range of bytes; others are ignored")),
    responses(
        (status = 200, description = "The complete file", content(("audio/flac")),
            headers(("Accept-Ranges" = String, description = "bytes"))),
        (status = 206, description = "The range", content(("audio/flac")),
            headers(("Content-Range" = String, description = "The range and the size of the file")))))]
pub(super) fn read_preview() {}

/// Starts a session of a browser.
///
/// The cookie in the response authenticates requests of the API's own page for 12 hours.
#[utoipa::path(post, path = "/v1/session", tag = "session", security(()),
    request_body = NewSessionSchema,
    responses((status = 204, description = "The session has started",
        headers(("Set-Cookie" = String, description = "The session")))))]
pub(super) fn sign_in() {}

/// Returns the client of the request.
#[utoipa::path(get, path = "/v1/session", tag = "session",
    responses((status = 200, description = "The client", body = SessionView)))]
pub(super) fn read_session() {}

/// Ends the session of a browser.
#[utoipa::path(delete, path = "/v1/session", tag = "session", security(()),
    responses((status = 204, description = "The session has ended",
        headers(("Set-Cookie" = String, description = "Removes the session")))))]
pub(super) fn sign_out() {}

/// Returns this document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "service", security(()),
    responses((status = 200, description = "The OpenAPI document", content(("application/json")))))]
pub(super) fn read_openapi() {}
