//! The API's routes and their middleware.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use separation_daemon::names_this_machine;

use super::app::App;
use super::problem::Problem;
use super::{Access, handlers, openapi, page};

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
            .route("/", get(page::serve))
            .merge(authenticated)
            .fallback(|| async { Problem::not_found() })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            })
            // Each handler sets its own limit.
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(self.clone(), complete_response))
            .with_state(self.clone())
    }
}

async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    check_client(&app.settings.access, request.method(), request.headers())?;
    Ok(next.run(request).await)
}

fn check_client(access: &Access, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if !access.allows(authorization) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    // Without authentication, a page whose host name was rebound to this machine (DNS rebinding) must be refused.
    if matches!(access, Access::Open) && !names_this_machine(headers) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
            .with_details("without a password, call the API as localhost or by its IP address"));
    }
    // Browsers send stored credentials with requests from other sites' pages too.
    let is_cross_site = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site");
    if is_cross_site && method != Method::GET {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
            .with_details("pages of other sites must not post songs"));
    }
    Ok(())
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
