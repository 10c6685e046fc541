//! An API server that knows one lease, for tests: versions are checked, and answers can be lost.

use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Well,
    /// Requests never arrive.
    Away,
    /// Requests are done, and answers never arrive.
    Silent,
    /// Requests are refused.
    Refusing,
}

#[derive(Debug, Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    mode: Mode,
    writes: u64,
}

/// An API server that knows one lease.
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    pub(super) fn answer_like(&self, mode: Mode) {
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

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let mode = self.state().mode;
        if mode == Mode::Away {
            std::future::pending::<()>().await;
        }
        if mode == Mode::Refusing {
            return Ok(status(StatusCode::SERVICE_UNAVAILABLE));
        }
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await?;
        let answer = self.state().done(&method, &body);
        if mode == Mode::Silent {
            std::future::pending::<()>().await;
        }
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }
}

impl State {
    fn done(&mut self, method: &Method, body: &[u8]) -> Response<Body> {
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
                let answer = ok(&lease);
                self.lease = Some(lease);
                answer
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
