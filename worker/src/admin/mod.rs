//! A worker's admin endpoint: liveness, readiness, metrics, status and drain.
//!
//! Liveness depends on the main loop and never on Kafka. `/status` and `/drain` serve only the worker's own machine or
//! pod.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use separation_daemon::{Heartbeat, Limits, names_this_machine};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::service::{Activity, Shutdown};
use crate::telemetry::{Families, Holds};

/// State that the admin endpoint serves.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The worker's state: idle, busy or draining.
    pub activity: watch::Receiver<Activity>,
    /// Metric families for `/metrics`.
    pub metrics: Families,
    /// Dependencies that refuse this worker.
    pub holds: Holds,
    /// Heartbeat of the main loop, for `/live`.
    pub heartbeat: Heartbeat,
    /// The shutdown that `/drain` starts.
    pub shutdown: Shutdown,
}

impl Admin {
    /// Starts to serve at an address, for the rest of the process.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on ADMIN_ADDR {address}"))?;
        tokio::spawn(self.serve(listener));
        Ok(())
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, listener: TcpListener) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "Admin endpoint listens");
        }
        let until_dropped = CancellationToken::new();
        let router = self.router();
        separation_daemon::serve(listener, router, Limits::ADMIN, until_dropped, Duration::ZERO).await;
    }

    fn router(self) -> Router {
        let own = Router::new()
            .route("/status", get(status))
            .route("/drain", post(drain))
            .route_layer(middleware::from_fn(own_machine_only));
        Router::new()
            .route("/live", get(live))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .merge(own)
            .with_state(self)
    }
}

/// Refuses requests from other machines, and from pages of other sites in a browser on this machine: these send an
/// `Origin`, or after DNS rebinding their own name as `Host`.
async fn own_machine_only(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let from_page = headers.contains_key(header::ORIGIN) || !names_this_machine(headers);
    if peer.ip().to_canonical().is_loopback() && !from_page {
        next.run(request).await
    } else {
        (
            StatusCode::FORBIDDEN,
            "forbidden: only requests from the worker's own machine or pod are served\n",
        )
            .into_response()
    }
}

async fn live(State(admin): State<Admin>) -> Response {
    let Some(stuck) = admin.heartbeat.stuck_for() else {
        return "alive\n".into_response();
    };
    let text = format!("the main loop has not run for {} s\n", stuck.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    let activity = admin.activity.borrow().clone();
    match activity {
        Activity::Idle | Activity::Busy { .. } => ready_text("ready", &admin).into_response(),
        Activity::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, ready_text("starting", &admin)).into_response()
        }
        Activity::Draining { .. } | Activity::Stopped => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
        }
    }
}

/// A worker that a dependency refuses stays ready: another worker would be refused too.
fn ready_text(state: &str, admin: &Admin) -> String {
    let mut text = format!("{state}\n");
    for (hold, fix) in admin.holds.reports() {
        text += &format!(
            "held: {} refuses this worker since {}; fix: {fix}\n",
            hold.dependency(),
            hold.since
        );
    }
    text
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], admin.metrics.text()).into_response()
}

/// The worker's state, and the dependencies that refuse it.
#[derive(serde::Serialize)]
struct Status {
    #[serde(flatten)]
    activity: Activity,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held: Vec<HeldDependency>,
}

#[derive(serde::Serialize)]
struct HeldDependency {
    dependency: String,
    /// Unix seconds.
    since: u64,
    fix: &'static str,
}

async fn status(State(admin): State<Admin>) -> Response {
    let held = admin.holds.reports().into_iter();
    let held = held.map(|(hold, fix)| HeldDependency {
        dependency: hold.dependency().to_owned(),
        since: hold.since,
        fix,
    });
    let activity = admin.activity.borrow().clone();
    axum::Json(Status {
        activity,
        held: held.collect(),
    })
    .into_response()
}

async fn drain(State(admin): State<Admin>) -> Response {
    admin.shutdown.awaited.cancel();
    if !admin.shutdown.drain.is_cancelled() {
        tracing::info!("Received drain, initiating graceful shutdown...");
        admin.shutdown.drain.cancel();
    }
    axum::Json(admin.activity.borrow().clone()).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::telemetry::Metrics;

    fn admin() -> (Admin, watch::Sender<Activity>) {
        let (sender, activity) = watch::channel(Activity::Starting);
        let metrics = Metrics::new();
        let admin = Admin {
            activity,
            metrics: metrics.families(),
            holds: metrics.holds().clone(),
            heartbeat: Heartbeat::default(),
            shutdown: Shutdown::default(),
        };
        (admin, sender)
    }

    /// The status and body of one request over a real connection to `app`.
    async fn ask(app: Router, request: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a server");
        let host = if request.contains("\r\nHost: ") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        let request = format!("{request}\r\n{host}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        server.abort();
        let status = answer
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a number");
        (
            status,
            answer.split_once("\r\n\r\n").expect("a body").1.to_owned(),
        )
    }

    async fn call(admin: &Admin, request: &str) -> (u16, String) {
        ask(admin.clone().router(), request).await
    }

    #[tokio::test]
    async fn readiness_follows_the_workers_state() {
        let (admin, sender) = admin();
        assert_eq!(call(&admin, "GET /live HTTP/1.1").await.0, 200);
        assert_eq!(call(&admin, "GET /ready HTTP/1.1").await.0, 503);
        sender.send_replace(Activity::Busy { task: "a".into() });
        assert_eq!(call(&admin, "GET /ready HTTP/1.1").await, (200, "ready\n".into()));
        let held = admin.holds.set("s3:403", "grant it");
        let (status, detail) = call(&admin, "GET /ready HTTP/1.1").await;
        assert_eq!(status, 200);
        assert_eq!(
            detail,
            format!(
                "ready\nheld: s3:403 refuses this worker since {}; fix: grant it\n",
                held.since
            )
        );
        let expected = format!(
            r#"{{"state":"busy","task":"a","held":[{{"dependency":"s3:403","since":{},"fix":"grant it"}}]}}"#,
            held.since
        );
        assert_eq!(call(&admin, "GET /status HTTP/1.1").await, (200, expected));
        admin.holds.clear("s3:403");
        assert_eq!(
            call(&admin, "GET /status HTTP/1.1").await,
            (200, r#"{"state":"busy","task":"a"}"#.into())
        );
        sender.send_replace(Activity::Draining { task: None });
        assert_eq!(call(&admin, "GET /ready HTTP/1.1").await.0, 503);
        assert_eq!(call(&admin, "GET /live HTTP/1.1").await.0, 200);
    }

    #[tokio::test]
    async fn a_drain_is_accepted_from_the_own_machine_and_refused_from_a_page() {
        let (admin, _sender) = admin();
        let from_page = "POST /drain HTTP/1.1\r\nOrigin: http://evil";
        assert_eq!(call(&admin, from_page).await.0, 403);
        assert!(!admin.shutdown.drain.is_cancelled());
        assert_eq!(call(&admin, "POST /drain HTTP/1.1").await.0, 200);
        assert!(admin.shutdown.drain.is_cancelled());
    }

    #[tokio::test]
    async fn a_site_whose_name_resolves_to_this_machine_is_refused() {
        let (admin, _sender) = admin();
        let rebound = "POST /drain HTTP/1.1\r\nHost: evil.example:8081";
        assert_eq!(call(&admin, rebound).await.0, 403);
        assert_eq!(
            call(&admin, "GET /status HTTP/1.1\r\nHost: evil.example").await.0,
            403
        );
        assert!(!admin.shutdown.drain.is_cancelled());
        // Probes and Prometheus use whatever name the pod has.
        assert_eq!(
            call(&admin, "GET /metrics HTTP/1.1\r\nHost: worker.media")
                .await
                .0,
            200
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_whose_main_loop_is_stuck_is_not_alive() {
        let (admin, _sender) = admin();
        tokio::time::advance(Duration::from_secs(61)).await;
        let answer = live(State(admin.clone())).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        admin.heartbeat.beat();
        assert_eq!(live(State(admin)).await.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_disconnected() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (admin, _sender) = admin();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(admin.serve(listener));
        let mut slow = tokio::net::TcpStream::connect(address).await.expect("a server");
        slow.write_all(b"GET /live HTTP/1.1\r\n").await.expect("it reads");
        // The paused clock advances while both tasks wait.
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer).await;
        assert!(!server.is_finished());
        server.abort();
    }

    #[tokio::test]
    async fn clients_on_other_machines_are_refused() {
        let (admin, _sender) = admin();
        let other_machine = "10.1.2.3:4".parse::<SocketAddr>().expect("an address");
        let guarded = Router::new()
            .route("/drain", post(drain))
            .route_layer(middleware::from_fn(own_machine_only))
            .layer(axum::Extension(ConnectInfo(other_machine)))
            .with_state(admin.clone());
        assert_eq!(ask(guarded, "POST /drain HTTP/1.1").await.0, 403);
        assert!(!admin.shutdown.drain.is_cancelled());
    }
}
