//! The operator's own endpoint: whether it lives, whether it is ready, and its metrics.
//!
//! Living depends on nothing but the main loop; being ready on having seen the cluster once, never on leading: a standby
//! is ready. Neither asks Kafka or the API server. Nothing here can be changed by a caller, and nothing is secret.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
pub use separation_daemon::Heartbeat;
use separation_daemon::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long open connections may take to end.
const CLOSE: Duration = Duration::from_secs(2);

/// What must have been seen once before the operator is ready; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    seen: Arc<Mutex<BTreeMap<&'static str, Seen>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    NotYet,
    Whole,
}

impl Readiness {
    /// That of an operator that waits for these, such as `pools`.
    pub fn waits_for(what: &[&'static str]) -> Self {
        let seen = what.iter().map(|what| (*what, Seen::NotYet)).collect();
        Self {
            seen: Arc::new(Mutex::new(seen)),
        }
    }

    /// One of them was seen whole. That a watch begins anew later changes nothing: what was seen is still there.
    pub fn seen(&self, what: &'static str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(what, Seen::Whole);
    }

    fn missing(&self) -> Vec<&'static str> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = seen.iter().filter(|(_, seen)| **seen == Seen::NotYet);
        missing.map(|(what, _)| *what).collect()
    }
}

/// What the endpoint tells.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whether the main loop runs.
    pub heartbeat: Heartbeat,
    /// Whether the cluster was seen.
    pub readiness: Readiness,
    /// What was counted.
    pub metrics: Metrics,
}

impl Health {
    /// Serves until `stop`, and lets requests in progress end.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "Health and metrics can be asked for");
        }
        separation_daemon::serve(listener, self.router(), Limits::ADMIN, stop, CLOSE).await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(live))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn live(State(health): State<Health>) -> Response {
    let Some(silent) = health.heartbeat.stuck_for() else {
        return "alive\n".into_response();
    };
    let text = format!("the main loop has been silent for {} s\n", silent.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    let missing = health.readiness.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not yet seen: {}\n", missing.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], health.metrics.text()).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::{advance, timeout};
    use tower::ServiceExt as _;

    use super::*;

    fn health() -> Health {
        Health {
            heartbeat: Heartbeat::default(),
            readiness: Readiness::waits_for(&["pools", "deployments"]),
            metrics: Metrics::new(),
        }
    }

    async fn ask(health: &Health, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = health
            .clone()
            .router()
            .oneshot(request)
            .await
            .expect("it answers");
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn it_lives_while_the_main_loop_beats() {
        let health = health();
        assert_eq!(ask(&health, "/healthz").await.0, 200);
        advance(Duration::from_secs(59)).await;
        assert_eq!(ask(&health, "/healthz").await.0, 200);
        advance(Duration::from_secs(2)).await;
        let (status, text) = ask(&health, "/healthz").await;
        assert_eq!(
            (status, &*text),
            (503, "the main loop has been silent for 61 s\n")
        );
        health.heartbeat.beat();
        assert_eq!(ask(&health, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn it_is_ready_once_everything_was_seen() {
        let health = health();
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!((status, &*text), (503, "not yet seen: deployments, pools\n"));
        health.readiness.seen("pools");
        assert_eq!(ask(&health, "/readyz").await.1, "not yet seen: deployments\n");
        health.readiness.seen("deployments");
        assert_eq!(ask(&health, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_there_and_nothing_else_is() {
        let health = health();
        let (status, text) = ask(&health, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("separation_operator_leader 0"), "{text}");
        assert_eq!(ask(&health, "/").await.0, 404);
    }

    async fn started(health: Health) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let server = tokio::spawn(health.serve(listener, stop.clone()));
        (address, stop, server)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_disconnected() {
        let (address, stop, _server) = started(health()).await;
        let mut slow = TcpStream::connect(address).await.expect("it listens");
        slow.write_all(b"GET /healthz HTTP/1.1\r\n")
            .await
            .expect("it reads");
        // Time passes by itself while both wait.
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer).await;
        assert!(!stop.is_cancelled());
    }

    #[tokio::test]
    async fn it_ends_when_it_is_told_to_although_a_caller_does_not() {
        let (address, stop, server) = started(health()).await;
        let mut slow = TcpStream::connect(address).await.expect("it listens");
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            .await
            .expect("it reads");
        let mut caller = TcpStream::connect(address).await.expect("it listens");
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        caller.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stop.cancel();
        timeout(CLOSE * 3, server)
            .await
            .expect("in time")
            .expect("it ends");
    }
}
