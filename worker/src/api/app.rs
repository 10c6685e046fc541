//! The API as a whole: its parts, and which request goes where.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use separation_daemon::names_this_machine;
use tokio_util::task::TaskTracker;

use super::borders::{TaskFiles, TaskQueue};
use super::intake::Intake;
use super::problem::Problem;
use super::{Access, ApiSettings, handlers, openapi, page};
use crate::outbound::Client;
use crate::telemetry::ApiMetrics;

/// The API; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(super) settings: Arc<ApiSettings>,
    pub(super) outbound: Client,
    pub(super) queue: Arc<dyn TaskQueue>,
    pub(super) files: Arc<dyn TaskFiles>,
    pub(super) intake: Intake,
    metrics: ApiMetrics,
    unfinished: TaskTracker,
}

impl App {
    /// The API of these parts.
    pub fn new(
        settings: ApiSettings,
        outbound: Client,
        queue: Arc<dyn TaskQueue>,
        files: Arc<dyn TaskFiles>,
        metrics: ApiMetrics,
    ) -> Self {
        let unfinished = TaskTracker::new();
        let intake = Intake::new(
            Arc::clone(&queue),
            Arc::clone(&files),
            &settings,
            unfinished.clone(),
        );
        Self {
            settings: Arc::new(settings),
            outbound,
            queue,
            files,
            intake,
            metrics,
            unfinished,
        }
    }

    /// Which request goes where.
    pub fn router(&self) -> Router {
        let for_callers = Router::new()
            .route("/generate", post(handlers::generate))
            .route("/tasks", post(handlers::upload))
            .route("/tasks/{task_uuid}", get(handlers::status))
            .route_layer(from_fn_with_state(self.clone(), authorise));
        Router::new()
            .route("/health", get(handlers::health))
            .route("/openapi.json", get(openapi::serve))
            .route("/", get(page::serve))
            .merge(for_callers)
            .fallback(|| async { Problem::not_found() })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            })
            // Each reader has a limit of its own.
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(self.clone(), guard))
            .with_state(self.clone())
    }

    /// Waits until nothing is half-done any more.
    pub(super) async fn finish(&self) {
        self.unfinished.close();
        self.unfinished.wait().await;
    }

    pub(super) async fn close_queue(&self, limit: Duration) {
        self.queue.close(limit).await;
    }
}

/// Lets in who may call.
async fn authorise(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    check_caller(&app.settings.access, request.method(), request.headers())?;
    Ok(next.run(request).await)
}

fn check_caller(access: &Access, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if !access.allows(authorization) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    // Where nobody has to log in, a page of a stranger whose name was made to mean this machine must not get in.
    if matches!(access, Access::Open) && !names_this_machine(headers) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
            .because("without a password the API is called as localhost or by its address"));
    }
    // Browsers log in by themselves, for other sites' pages too.
    let from_elsewhere = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site");
    if from_elsewhere && method != Method::GET {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
            .because("pages of other sites may not post songs"));
    }
    Ok(())
}

/// What every answer says to browsers; and counts it.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
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
