//! A test API server with one lease: it checks versions, and can drop responses.

use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

/// How requests are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ServerMode {
    #[default]
    Healthy,
    /// Requests never arrive.
    Unreachable,
    /// Requests are applied, but responses never arrive.
    NoResponse,
    /// Requests are answered with 503.
    Unavailable,
}

#[derive(Debug, Default)]
struct LeaseState {
    lease: Option<Value>,
    version: u64,
    mode: ServerMode,
    writes: u64,
}

/// A test API server with one lease.
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    state: Arc<Mutex<LeaseState>>,
}

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.respond(request).await }
        });
        Client::new(service, "default")
    }

    pub(super) fn set_mode(&self, mode: ServerMode) {
        self.state().mode = mode;
    }

    pub(super) fn holder(&self) -> Option<String> {
        let state = self.state();
        let holder = &state.lease.as_ref()?["spec"]["holderIdentity"];
        Some(holder.as_str()?.to_owned())
    }

    pub(super) fn delete(&self) {
        self.state().lease = None;
    }

    pub(super) fn writes(&self) -> u64 {
        self.state().writes
    }

    async fn respond(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let mode = self.state().mode;
        if mode == ServerMode::Unreachable {
            std::future::pending::<()>().await;
        }
        if mode == ServerMode::Unavailable {
            return Ok(status(StatusCode::SERVICE_UNAVAILABLE));
        }
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await?;
        let response = self.state().apply(&method, &body);
        if mode == ServerMode::NoResponse {
            std::future::pending::<()>().await;
        }
        Ok(response)
    }

    fn state(&self) -> MutexGuard<'_, LeaseState> {
        self.state.lock().expect("no thread panics")
    }
}

impl LeaseState {
    fn apply(&mut self, method: &Method, body: &[u8]) -> Response<Body> {
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => ok(lease),
            (&Method::GET | &Method::PUT, None) => status(StatusCode::NOT_FOUND),
            (&Method::POST, Some(_)) => status(StatusCode::CONFLICT),
            (_, before) => {
                let mut lease: Value = serde_json::from_slice(body).expect("a lease");
                let version = before.as_ref().map(|lease| &lease["metadata"]["resourceVersion"]);
                if version.is_some_and(|version| *version != lease["metadata"]["resourceVersion"]) {
                    return status(StatusCode::CONFLICT);
                }
                self.version += 1;
                self.writes += 1;
                lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
                let response = ok(&lease);
                self.lease = Some(lease);
                response
            }
        }
    }
}

fn ok(lease: &Value) -> Response<Body> {
    Response::new(Body::from(lease.to_string().into_bytes()))
}

fn status(code: StatusCode) -> Response<Body> {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        _ => "ServiceUnavailable",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
                        "reason": reason, "message": code.to_string()});
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = code;
    response
}
