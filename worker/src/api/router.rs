//! The API's routes and their middleware.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

use super::access_log::LoggedClient;
use super::app::App;
use super::clients::Client;
use super::problem::Problem;
use super::v1::problem::Problem as V1Problem;
use super::v1::{self, session, stems, tasks, uploads};
use super::{access_log, docs, handlers, openapi, origin, page};
use crate::clock::unix_time;

impl App {
    /// Routes, authentication and response headers.
    pub fn router(&self) -> Router {
        let authenticated = Router::new()
            .route("/generate", post(handlers::generate))
            .route("/tasks", post(handlers::upload))
            .route("/tasks/{task_uuid}", get(handlers::status))
            .route_layer(from_fn_with_state(self.clone(), authenticate));
        Router::new()
            .route("/health", get(handlers::health))
            .route("/openapi.json", get(openapi::serve))
            .route("/docs", get(docs::serve))
            .route("/", get(page::serve))
            .route("/assets/{name}", get(page::file))
            .merge(authenticated)
            .nest("/v1", self.v1_routes())
            .fallback(|| async { Problem::not_found() })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            })
            // Each handler sets its own limit.
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(self.clone(), complete_response))
            // The outermost layer: it logs the final status and the complete duration.
            .layer(from_fn_with_state(self.metrics.clone(), access_log::log))
            .with_state(self.clone())
    }

    fn v1_routes(&self) -> Router<Self> {
        let authenticated = Router::new()
            .route("/uploads", post(uploads::create))
            .route("/tasks", post(tasks::create))
            .route("/tasks/{id}", get(tasks::read).delete(tasks::erase))
            .route("/tasks/{id}/cancel", post(tasks::cancel))
            .route("/tasks/{id}/stems/{stem}", get(stems::stem))
            .route("/tasks/{id}/peaks", get(stems::peaks))
            .route("/tasks/{id}/previews/{stem}", get(stems::preview))
            .route("/session", get(session::read))
            .route_layer(from_fn_with_state(self.clone(), authenticate_v1));
        let signing_in = Router::new()
            .route("/session", post(session::sign_in).delete(session::sign_out))
            .route_layer(from_fn_with_state(self.clone(), check_origin_v1));
        Router::new()
            .route("/openapi.json", get(v1::openapi::serve))
            .merge(authenticated)
            .merge(signing_in)
            .fallback(|| async { V1Problem::not_found() })
            .method_not_allowed_fallback(|| async { V1Problem::method_not_allowed() })
    }
}

/// Authenticates a request of the drop-in API; a session of the page is no authentication here.
async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let clients = &app.settings.clients;
    let client = clients
        .by_authorization(request.headers())
        .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized"))?;
    origin::check_drop_in(clients, request.method(), request.headers())
        .map_err(|details| Problem::new(StatusCode::FORBIDDEN, "Forbidden").with_details(details))?;
    Ok(run_as(client, request, next).await)
}

async fn authenticate_v1(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, V1Problem> {
    let clients = &app.settings.clients;
    let client = clients
        .authenticate(request.headers(), unix_time().as_secs())
        .ok_or_else(|| {
            V1Problem::unauthenticated("send the header `Authorization: Bearer KEY` with an API key")
        })?;
    check_origin(&app, &request)?;
    Ok(run_as(client, request, next).await)
}

async fn check_origin_v1(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, V1Problem> {
    check_origin(&app, &request)?;
    Ok(next.run(request).await)
}

fn check_origin(app: &App, request: &Request) -> Result<(), V1Problem> {
    let (clients, public_url) = (&app.settings.clients, app.settings.v1.public_url.as_ref());
    let checked = origin::check_v1(clients, public_url, request.method(), request.headers());
    checked.map_err(V1Problem::forbidden)
}

/// Runs a request for the client that its handler gets as an extension, and the access log from the response.
async fn run_as(client: Arc<Client>, mut request: Request, next: Next) -> Response {
    let logged = LoggedClient(client.name.clone());
    request.extensions_mut().insert(client);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(logged);
    response
}

/// Sets the security headers of every response and counts it.
async fn complete_response(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    app.metrics.request(response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}
