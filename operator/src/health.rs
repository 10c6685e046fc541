//! The operator's own endpoint: whether it lives, whether it is ready, and its metrics.
//!
//! Living depends on nothing but the main loop; being ready on having seen the cluster once, never on leading: a standby
//! is ready. Neither asks Kafka or the API server. Nothing here can be changed by a caller, and nothing is secret.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;

/// The main loop beats every second or so; one that has been silent for so long is stuck, and the process is to be
/// started anew. Its longest deadline is half of it.
const SILENT_FOR_TOO_LONG: Duration = Duration::from_secs(60);

/// How long open connections may take to end.
const CLOSE: Duration = Duration::from_secs(2);

/// Shows that the main loop runs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    start: Instant,
    /// Milliseconds from the start to the last beat.
    last: Arc<AtomicU64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: Arc::default(),
        }
    }
}

impl Heartbeat {
    /// The main loop runs.
    pub fn beat(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

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
    /// Answers until `stop`, and lets what is being answered end.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "Health and metrics can be asked for");
        }
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(async move {
            stop.await;
            let _ = stopping.send(());
        });
        let mut server = std::pin::pin!(server.into_future());
        tokio::select! {
            ended = &mut server => return ended,
            _ = stopped => {}
        }
        // A caller that never ends its request must not hold up the end.
        timeout(CLOSE, server).await.unwrap_or(Ok(()))
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
    let silent = health.heartbeat.silent_for();
    if silent < SILENT_FOR_TOO_LONG {
        return "alive\n".into_response();
    }
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
    use tokio::sync::oneshot;
    use tokio::time::advance;
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

    async fn started(health: Health) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            health.serve(listener, stop).await.expect("it serves");
        });
        (address, stop, server)
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
        stop.send(()).expect("it runs");
        timeout(CLOSE * 3, server)
            .await
            .expect("in time")
            .expect("it ends");
    }
}
