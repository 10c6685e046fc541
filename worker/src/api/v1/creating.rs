//! Creates tasks from requests with JSON, or with a form that contains the song.
//!
//! A request whose task has an ID that other requests may have creates it under a claim, so that two of them never store
//! different songs or records for it. A request is answered to its end also if its client disconnects.

use std::time::Duration;

use axum::extract::Request;
use tokio::time::Instant;

use super::super::app::App;
use super::super::clients::Client;
use super::claims::{self, while_claimed};
use super::intake::{
    Accepted, Identity, announce, check_upload, create, find_replayed, identity, stored_input, stored_task,
    trace, within_limit,
};
use super::problem::Problem;
use super::receiving::receive;
use super::request::{NewInput, NewTask, TaskForm, parse_task, read_json};
use super::state::V1;
use super::unread::share_body;
use crate::telemetry::TraceContext;

/// Time in which a request with JSON waits for another one with the same ID; without a song that one takes less.
const SHORT_WAIT: Duration = Duration::from_secs(2);

/// Pause between two looks at whether the other request was answered.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// `Retry-After` of a request whose Idempotency-Key is in use, in seconds.
const IN_USE_RETRY_SECONDS: u64 = 5;

/// A valid request with JSON.
struct JsonRequest<'r> {
    new: &'r NewTask,
    fingerprint: String,
    trace: TraceContext,
}

/// Accepts a task from JSON.
pub(super) async fn create_from_json(
    app: &App,
    v1: &V1,
    client: &Client,
    request: Request,
) -> Result<Accepted, Problem> {
    let (parts, body) = request.into_parts();
    let json = read_json(&parts.headers, body, app.settings.input.idle).await?;
    let new = parse_task(&json, TaskForm::Json, v1.formats().await)?;
    new.check_urls(&app.outbound)?;
    let request = JsonRequest {
        new: &new,
        fingerprint: new.fingerprint(None),
        trace: trace(&parts.headers),
    };
    let wait_until = Instant::now() + SHORT_WAIT;
    loop {
        let identity = identity(v1, client, &parts.headers, &new.input).await?;
        if let Some(accepted) = try_json(app, v1, client, &identity, &request).await? {
            return Ok(accepted);
        }
        if Instant::now() >= wait_until {
            return Err(in_use());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Accepts a task from JSON; none if another request with its ID is being answered, or its earlier task was just erased.
async fn try_json(
    app: &App,
    v1: &V1,
    client: &Client,
    identity: &Identity,
    request: &JsonRequest<'_>,
) -> Result<Option<Accepted>, Problem> {
    let id = &identity.id;
    if !identity.is_repeatable {
        return within_limit(v1, client, id, create_json(app, v1, client, identity, request)).await;
    }
    // A repeated request needs no claim.
    if let Some(task) = find_replayed(v1, client, id, &request.fingerprint).await? {
        return Ok(Some(Accepted::Replayed(task)));
    }
    let creating = create_json_once(app, v1, client, identity, request);
    let created = while_claimed(&v1.store, &claims::of_request(id), &v1.replica, creating).await?;
    created.unwrap_or(Ok(None))
}

/// Creates a task under the claim on its ID.
async fn create_json_once(
    app: &App,
    v1: &V1,
    client: &Client,
    identity: &Identity,
    request: &JsonRequest<'_>,
) -> Result<Option<Accepted>, Problem> {
    let id = &identity.id;
    match find_replayed(v1, client, id, &request.fingerprint).await? {
        Some(task) => Ok(Some(Accepted::Replayed(task))),
        None => within_limit(v1, client, id, create_json(app, v1, client, identity, request)).await,
    }
}

async fn create_json(
    app: &App,
    v1: &V1,
    client: &Client,
    identity: &Identity,
    request: &JsonRequest<'_>,
) -> Result<Option<Accepted>, Problem> {
    let JsonRequest {
        new,
        fingerprint,
        trace,
    } = request;
    if let NewInput::Upload(id) = &new.input {
        check_upload(v1, client, id, app.settings.input.max_bytes).await?;
    }
    let (id, input) = (identity.id.clone(), stored_input(&new.input, None, None));
    let task = stored_task(client, id, new, fingerprint.clone(), input, *trace);
    let incoming = announce(v1, &task).await?;
    create(v1, client, identity, task, incoming).await
}

/// Accepts a task from a form.
pub(super) async fn create_from_form(
    app: &App,
    v1: &V1,
    client: &Client,
    request: Request,
) -> Result<Accepted, Problem> {
    let (request, unread) = share_body(request);
    let accepted = accept_form(app, v1, client, request).await;
    if accepted.is_err() {
        unread.discard().await;
    }
    accepted
}

async fn accept_form(app: &App, v1: &V1, client: &Client, request: Request) -> Result<Accepted, Problem> {
    let identity = identity(v1, client, request.headers(), &NewInput::File).await?;
    let is_claimed = identity.is_repeatable && v1.store.task(&client.name, &identity.id).await?.is_none();
    let receiving = receive(app, v1, client, &identity, request);
    let accepted = match is_claimed {
        true => {
            let claim = claims::of_request(&identity.id);
            let received = while_claimed(&v1.store, &claim, &v1.replica, receiving).await?;
            received.unwrap_or(Ok(None))?
        }
        false => receiving.await?,
    };
    accepted.ok_or_else(in_use)
}

fn in_use() -> Problem {
    Problem::idempotency_in_progress().retry_after(IN_USE_RETRY_SECONDS)
}
