//! A worker's own endpoint: whether it lives, whether it is ready, what it has counted, and its drain.
//!
//! Living never depends on Kafka. What changes or tells about tasks answers the worker's own machine or pod only.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use separation_contract::offset_metadata::Hold;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::service::{Activity, Shutdown};
use crate::telemetry::Metrics;

/// What the endpoint tells and does.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What the worker is doing.
    pub activity: watch::Receiver<Activity>,
    /// What it has counted.
    pub metrics: Metrics,
    /// How it is drained.
    pub shutdown: Shutdown,
}

impl Admin {
    /// Answers until the task is dropped.
    pub async fn serve(self, listener: TcpListener) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "Admin endpoint listens");
        }
        let app = self.router().into_make_service_with_connect_info::<SocketAddr>();
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "Admin endpoint failed");
        }
    }

    fn router(self) -> Router {
        let own = Router::new()
            .route("/status", get(status))
            .route("/drain", post(drain))
            .route_layer(middleware::from_fn(own_machine_only));
        Router::new()
            .route("/live", get(|| async { "alive\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .merge(own)
            .with_state(self)
    }
}

/// Refuses callers from elsewhere. The browser of somebody on this machine sends an `Origin` or a foreign `Host`.
async fn own_machine_only(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let from_page = request.headers().contains_key(header::ORIGIN);
    if peer.ip().to_canonical().is_loopback() && !from_page {
        next.run(request).await
    } else {
        (
            StatusCode::FORBIDDEN,
            "only from the worker's own machine or pod\n",
        )
            .into_response()
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let activity = admin.activity.borrow().clone();
    match activity {
        Activity::Idle | Activity::Busy { .. } => ready_text(&admin.metrics.holds().list()).into_response(),
        Activity::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Activity::Draining { .. } | Activity::Stopped => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
        }
    }
}

/// A worker that is refused stays ready: another one would be refused as well.
fn ready_text(holds: &[Hold]) -> String {
    let mut text = "ready\n".to_owned();
    for hold in holds {
        text += &format!(
            "held: {} refuses this worker since {}\n",
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

async fn status(State(admin): State<Admin>) -> Response {
    axum::Json(admin.activity.borrow().clone()).into_response()
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

    fn admin() -> (Admin, watch::Sender<Activity>) {
        let (sender, activity) = watch::channel(Activity::Starting);
        let admin = Admin {
            activity,
            metrics: Metrics::new(),
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
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
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
    async fn readiness_follows_what_the_worker_does() {
        let (admin, sender) = admin();
        assert_eq!(call(&admin, "GET /live HTTP/1.1").await.0, 200);
        assert_eq!(call(&admin, "GET /ready HTTP/1.1").await.0, 503);
        sender.send_replace(Activity::Busy { task: "a".into() });
        assert_eq!(call(&admin, "GET /ready HTTP/1.1").await, (200, "ready\n".into()));
        let held = admin.metrics.holds().set("s3:403");
        let (status, detail) = call(&admin, "GET /ready HTTP/1.1").await;
        assert_eq!(status, 200);
        assert_eq!(
            detail,
            format!("ready\nheld: s3:403 refuses this worker since {}\n", held.since)
        );
        assert_eq!(
            call(&admin, "GET /status HTTP/1.1").await,
            (200, r#"{"state":"busy","task":"a"}"#.into())
        );
        sender.send_replace(Activity::Draining { task: None });
        assert_eq!(call(&admin, "GET /ready HTTP/1.1").await.0, 503);
        assert_eq!(call(&admin, "GET /live HTTP/1.1").await.0, 200);
    }

    #[tokio::test]
    async fn a_drain_is_asked_for_by_the_own_machine_and_no_page() {
        let (admin, _sender) = admin();
        let from_page = "POST /drain HTTP/1.1\r\nOrigin: http://evil";
        assert_eq!(call(&admin, from_page).await.0, 403);
        assert!(!admin.shutdown.drain.is_cancelled());
        assert_eq!(call(&admin, "POST /drain HTTP/1.1").await.0, 200);
        assert!(admin.shutdown.drain.is_cancelled());
    }

    #[tokio::test]
    async fn callers_from_elsewhere_are_refused() {
        let (admin, _sender) = admin();
        let elsewhere = "10.1.2.3:4".parse::<SocketAddr>().expect("an address");
        let guarded = Router::new()
            .route("/drain", post(drain))
            .route_layer(middleware::from_fn(own_machine_only))
            .layer(axum::Extension(ConnectInfo(elsewhere)))
            .with_state(admin.clone());
        assert_eq!(ask(guarded, "POST /drain HTTP/1.1").await.0, 403);
        assert!(!admin.shutdown.drain.is_cancelled());
    }
}
