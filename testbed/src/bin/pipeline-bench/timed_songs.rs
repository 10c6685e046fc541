//! An S3 endpoint in front of the S3 server, which sends the song of each task only after a set time. A worker has its task
//! for that time and uses no CPU, so that many workers fit on one machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Songs and stems of a tenth of a second have some ten kilobytes.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// End of the object key of a task's song, after the task's id.
const SONG: &str = "_input.wav";

/// The endpoint; it ends when this is dropped.
pub(crate) struct TimedSongs {
    /// Its URL.
    pub(crate) endpoint: String,
    times: watch::Sender<HashMap<String, Duration>>,
    serving: JoinHandle<()>,
}

struct Forwarder {
    http: Client,
    upstream: String,
    /// By the task's id.
    times: watch::Receiver<HashMap<String, Duration>>,
}

impl TimedSongs {
    /// Listens on a free port of loopback and forwards to `upstream`, an S3 endpoint.
    pub(crate) async fn start(upstream: String) -> Result<Self> {
        // Fails only if it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().build()?;
        let (times, watched) = watch::channel(HashMap::new());
        let forwarder = Arc::new(Forwarder {
            http,
            upstream,
            times: watched,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(forward).with_state(forwarder);
        let serving = tokio::spawn(async move {
            // Returns only with this task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            endpoint,
            times,
            serving,
        })
    }

    /// Sets the time of a task.
    pub(crate) fn set(&self, task: &str, time: Duration) {
        self.times.send_modify(|times| {
            times.insert(task.to_owned(), time);
        });
    }
}

impl Drop for TimedSongs {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(State(forwarder): State<Arc<Forwarder>>, request: Request) -> Response<Body> {
    forwarder.forward(request).await.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(format!("{error:#}")));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}

impl Forwarder {
    /// Forwards a request with its own `Host`, which its signature covers.
    async fn forward(&self, request: Request) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let body = to_bytes(body, MAX_BODY_BYTES).await?;
        let sent = self
            .http
            .request(parts.method.clone(), format!("{}{path}", self.upstream))
            .headers(forwarded(parts.headers))
            .body(body)
            .send();
        let answer = sent.await?;
        if parts.method == Method::GET && answer.status().is_success() {
            self.wait(parts.uri.path()).await?;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = forwarded(answer.headers().clone());
        *response.body_mut() = Body::from(answer.bytes().await?);
        Ok(response)
    }

    /// Waits for the time of a task, if this is the path of its song. The client that posts the song may learn the task's
    /// id later than a worker.
    async fn wait(&self, path: &str) -> Result<()> {
        let Some(task) = path.rsplit('/').next().and_then(|name| name.strip_suffix(SONG)) else {
            return Ok(());
        };
        let mut times = self.times.clone();
        let time = {
            let known = times.wait_for(|times| times.contains_key(task)).await;
            known.context("the benchmark ended")?[task]
        };
        tokio::time::sleep(time).await;
        Ok(())
    }
}

/// The headers without those of one connection.
fn forwarded(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT] {
        headers.remove(name);
    }
    headers
}
