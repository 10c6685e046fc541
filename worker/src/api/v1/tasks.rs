//! Handlers of tasks: create, read, cancel, erase.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use separation_contract::message::TaskId;

use super::super::access_log::LoggedTask;
use super::super::app::App;
use super::super::clients::Client;
use super::super::requests::is_type;
use super::creating::{create_from_form, create_from_json};
use super::ending::{canceled, end};
use super::intake::Accepted;
use super::problem::Problem;
use super::snapshot::{Snapshot, context};
use super::state::V1;
use crate::clock::unix_time;
use crate::task_store::EndState;

/// Response header of a repeated request.
const REPLAYED: &str = "idempotency-replayed";

/// `POST /v1/tasks`: accepts a task, from JSON or a form. Runs to its end even if the client disconnects: then the body
/// ends early, or the task is accepted.
pub(in crate::api) async fn create(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    request: Request,
) -> Result<Response, Problem> {
    let answering = app.to_end(answer_create(app.clone(), client, request));
    answering.await.unwrap_or_else(|error| {
        tracing::error!(%error, "Creating a task ended early");
        Err(Problem::internal())
    })
}

async fn answer_create(app: App, client: Arc<Client>, request: Request) -> Result<Response, Problem> {
    let v1 = app.v1()?;
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let accepted = if is_type(content_type, "application/json") {
        create_from_json(&app, v1, &client, request).await?
    } else if is_type(content_type, "multipart/form-data") {
        create_from_form(&app, v1, &client, request).await?
    } else {
        let detail = "must be application/json or multipart/form-data";
        return Err(Problem::unsupported_content_type(detail));
    };
    created(&app, v1, accepted).await
}

/// `GET /v1/tasks/{id}`: the task.
pub(in crate::api) async fn read(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (v1, Path(id)) = (app.v1()?, id?);
    let snapshot = Snapshot::read(&app, v1, &client.name, &id).await?;
    Ok(snapshot.view(v1)?.response_if_changed(&headers))
}

/// `POST /v1/tasks/{id}/cancel`: ends the task, unless it has ended.
pub(in crate::api) async fn cancel(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let (v1, Path(id)) = (app.v1()?, id?);
    let mut snapshot = Snapshot::read(&app, v1, &client.name, &id).await?;
    let outcome = match snapshot.outcome.take() {
        // Its worker may be faster: the first outcome counts.
        None => end(&v1.store, &snapshot.task, canceled(&snapshot.task)).await?,
        Some(outcome) => {
            // A process that ended it may have been killed before it did.
            v1.store.close_open(&client.name, &snapshot.task.id).await?;
            outcome
        }
    };
    let state = outcome.state;
    snapshot.outcome = Some(outcome);
    match state {
        EndState::Cancelled => Ok(snapshot.view(v1)?.response(StatusCode::OK)),
        EndState::Erased => Err(Problem::not_found()),
        EndState::Succeeded | EndState::Failed => Err(Problem::task_already_finished(
            "only a task that has not ended can be canceled",
        )),
    }
}

/// `DELETE /v1/tasks/{id}`: ends the task and removes all of it.
pub(in crate::api) async fn erase(
    State(app): State<App>,
    Extension(client): Extension<Arc<Client>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let (v1, Path(id)) = (app.v1()?, id?);
    let id = TaskId::parse(&id).map_err(|_| Problem::not_found())?;
    let task = v1.store.task(&client.name, &id).await?;
    let task = task.ok_or_else(Problem::not_found)?;
    // Workers that find an outcome write nothing more. A webhook would report a task that cannot be read.
    v1.store.create_outcome(&canceled(&task)).await?;
    app.files.erase(&id).await?;
    v1.store.erase(&client.name, &id, unix_time().as_secs()).await?;
    tracing::info!(task_uuid = %id, client = client.name, "Task erased");
    Ok(StatusCode::NO_CONTENT)
}

/// The response to an accepted task.
async fn created(app: &App, v1: &V1, accepted: Accepted) -> Result<Response, Problem> {
    let (snapshot, is_replayed) = match accepted {
        Accepted::New(task) => (Snapshot::of_new(task), false),
        Accepted::Replayed(task) => (Snapshot::of(app, v1, task).await?, true),
    };
    let mut response = snapshot.view(v1)?.response(StatusCode::CREATED);
    let link = context(v1).task_link(&snapshot.task.id);
    let link = HeaderValue::try_from(link).map_err(|_| Problem::internal())?;
    response.headers_mut().insert(header::LOCATION, link);
    if is_replayed {
        let value = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, value);
    }
    response.extensions_mut().insert(LoggedTask(snapshot.task.id));
    Ok(response)
}
