//! The operator's HTTP endpoint: liveness, readiness and metrics.
//!
//! Liveness depends only on the main loop. Readiness depends on one complete listing of each watched kind, never on
//! leadership: a standby is ready. Neither calls Kafka or the API server. The endpoint is read-only and serves no
//! secrets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Time for open connections to end after a shutdown begins.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The kinds that must have been listed once before the operator is ready; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Readiness {
    /// Not ready until each of these, such as `pools`, has been listed.
    pub fn requires(kinds: &[&'static str]) -> Self {
        Self {
            missing: Arc::new(Mutex::new(kinds.iter().copied().collect())),
        }
    }

    /// Records that a kind was listed completely. A watch that restarts later changes nothing: its cache is kept.
    pub fn record_listed(&self, kind: &str) {
        self.lock().remove(kind);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state that the endpoint serves.
#[derive(Debug, Clone)]
pub struct Health {
    /// The main loop's heartbeat, for `/healthz`.
    pub heartbeat: Heartbeat,
    /// Which kinds were listed, for `/readyz`.
    pub readiness: Readiness,
    /// The metrics, for `/metrics`.
    pub metrics: Metrics,
}

impl Health {
    /// Serves until `stop`; requests in progress may finish.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "Serving health and metrics");
        }
        separation_daemon::serve(listener, self.router(), Limits::ADMIN, stop, CLOSE_TIMEOUT).await;
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
    let Some(stuck_for) = health.heartbeat.stuck_for() else {
        return "alive\n".into_response();
    };
    let text = format!(
        "the main loop has made no progress for {} s\n",
        stuck_for.as_secs()
    );
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    let missing: Vec<&str> = health.readiness.lock().iter().copied().collect();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not yet listed: {}\n", missing.join(", "));
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
            readiness: Readiness::requires(&["pools", "deployments"]),
            metrics: Metrics::new(),
        }
    }

    async fn fetch(health: &Health, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = health
            .clone()
            .router()
            .oneshot(request)
            .await
            .expect("it answers");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_fails_when_the_main_loop_stops_beating() {
        let health = health();
        assert_eq!(fetch(&health, "/healthz").await.0, 200);
        advance(Duration::from_secs(59)).await;
        assert_eq!(fetch(&health, "/healthz").await.0, 200);
        advance(Duration::from_secs(2)).await;
        let (status, text) = fetch(&health, "/healthz").await;
        assert_eq!(
            (status, &*text),
            (503, "the main loop has made no progress for 61 s\n")
        );
        health.heartbeat.beat();
        assert_eq!(fetch(&health, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn it_is_ready_once_every_kind_was_listed() {
        let health = health();
        let (status, text) = fetch(&health, "/readyz").await;
        assert_eq!((status, &*text), (503, "not yet listed: deployments, pools\n"));
        health.readiness.record_listed("pools");
        assert_eq!(fetch(&health, "/readyz").await.1, "not yet listed: deployments\n");
        health.readiness.record_listed("deployments");
        assert_eq!(fetch(&health, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served_and_unknown_paths_are_404() {
        let health = health();
        let (status, text) = fetch(&health, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("separation_operator_leader 0"), "{text}");
        assert_eq!(fetch(&health, "/").await.0, 404);
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
        // The paused clock advances while both sides wait.
        let mut response = Vec::new();
        let _ = slow.read_to_end(&mut response).await;
        assert!(!stop.is_cancelled());
    }

    #[tokio::test]
    async fn the_endpoint_stops_in_time_although_a_client_stalls() {
        let (address, stop, server) = started(health()).await;
        let mut slow = TcpStream::connect(address).await.expect("it listens");
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            .await
            .expect("it reads");
        let mut caller = TcpStream::connect(address).await.expect("it listens");
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        caller.write_all(request).await.expect("it reads");
        let mut response = String::new();
        caller.read_to_string(&mut response).await.expect("it answers");
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        stop.cancel();
        timeout(CLOSE_TIMEOUT * 3, server)
            .await
            .expect("in time")
            .expect("it ends");
    }
}
