//! The access log: one line for each request, and its duration by method and route.
//!
//! Logs no query, no body and no credentials. A route is the pattern that the path matched, so that metrics have few of
//! them.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use separation_contract::message::TaskId;

use crate::telemetry::{ApiMetrics, TraceContext};

/// Method and route without a name of their own.
const OTHER: &str = "other";

/// Parameters of routes that are IDs of tasks.
const TASK_PARAMETERS: [&str; 2] = ["{id}", "{task_uuid}"];

/// Name of the client that sent a request: an extension of the response, set by authentication.
#[derive(Debug, Clone)]
pub(super) struct LoggedClient(pub(super) String);

/// The task that a request created: an extension of the response, set by its handler.
#[derive(Debug, Clone)]
pub(super) struct LoggedTask(pub(super) TaskId);

/// A request. It is logged when this is dropped: a request whose client disconnects has no response.
struct Entry {
    metrics: ApiMetrics,
    method: &'static str,
    route: String,
    begin: Instant,
    trace: TraceContext,
    task: Option<TaskId>,
    client: Option<String>,
    status: Option<u16>,
}

/// Middleware around all routes and all other middleware, so that each request is logged with its final status and its
/// complete duration. It gives a request without a trace a new one, which its task then has.
pub(super) async fn log(
    State(metrics): State<ApiMetrics>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = matched.as_ref().map_or(OTHER, MatchedPath::as_str);
    let headers = request.headers_mut();
    let trace = TraceContext::from_header(headers.get(TraceContext::HEADER).map(HeaderValue::as_bytes));
    let value = HeaderValue::try_from(trace.to_string()).expect("a traceparent is ASCII");
    headers.insert(TraceContext::HEADER, value);
    let mut entry = Entry {
        metrics,
        method: method_name(request.method()),
        route: route.to_owned(),
        begin: Instant::now(),
        trace,
        task: task_in(route, request.uri().path()),
        client: None,
        status: None,
    };
    let response = next.run(request).await;
    let extensions = response.extensions();
    if let Some(created) = extensions.get::<LoggedTask>() {
        entry.task = Some(created.0.clone());
    }
    entry.client = extensions.get::<LoggedClient>().map(|client| client.0.clone());
    entry.status = Some(response.status().as_u16());
    response
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.begin.elapsed();
        self.metrics.request_took(self.method, &self.route, took);
        tracing::info!(
            method = self.method,
            route = self.route,
            status = self.status,
            duration_ms = took.as_millis() as u64,
            client = self.client,
            task_uuid = self.task.as_ref().map(TaskId::as_str),
            trace_id = self.trace.trace_id(),
            "{}",
            match self.status {
                Some(_) => "Request answered",
                None => "Request aborted by its client",
            }
        );
    }
}

/// The method, if the API has routes with it or browsers send it.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

/// The ID of a task in a path that matched `route`.
fn task_in(route: &str, path: &str) -> Option<TaskId> {
    let mut segments = route.split('/').zip(path.split('/'));
    let (_, id) = segments.find(|(pattern, _)| TASK_PARAMETERS.contains(pattern))?;
    TaskId::parse(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_request_is_the_parameter_of_its_route() {
        let task = |route, path| task_in(route, path).map(String::from);
        let id = |text: &str| Some(text.to_owned());
        assert_eq!(task("/v1/tasks/{id}", "/v1/tasks/a-1"), id("a-1"));
        assert_eq!(
            task("/v1/tasks/{id}/stems/{stem}", "/v1/tasks/a/stems/vocals"),
            id("a")
        );
        assert_eq!(task("/tasks/{task_uuid}", "/tasks/b"), id("b"));
        for (route, path) in [
            ("/v1/tasks", "/v1/tasks"),
            ("/assets/{file}", "/assets/page.js"),
            ("/v1/tasks/{id}", "/v1/tasks/..%2Fa"),
            ("/v1/tasks/{id}", "/v1/tasks/a\u{1b}"),
            (OTHER, "/a/b"),
        ] {
            assert_eq!(task(route, path), None, "{path}");
        }
    }

    #[test]
    fn methods_that_clients_invent_have_one_name() {
        let name = |method: &str| method_name(&Method::from_bytes(method.as_bytes()).expect("a method"));
        assert_eq!(
            ["HEAD", "DELETE", "BREW", "get"].map(name),
            ["HEAD", "DELETE", OTHER, OTHER]
        );
    }
}
