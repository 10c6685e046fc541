//! A real HTTP server that records requests and replies as a test scripts it: for webhooks, and songs to
//! download.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::background;

/// Larger than the body of any webhook.
const BODY_LIMIT_BYTES: usize = 64 * 1024 * 1024;
const BREAK_DELAY: Duration = Duration::from_millis(200);

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method: GET, POST and so on.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
    /// When it had arrived completely.
    pub at: Instant,
}

impl Request {
    /// The value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {}", text()))
    }
}

/// The reply to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status without a body.
    Status(u16),
    /// 302 to this URL.
    Redirect(String),
    /// 307 to this URL, where the client must repeat the POST.
    RedirectPost(String),
    /// 200 with this content type and body.
    Content(String, Bytes),
    /// 200 with these bytes, then a broken connection.
    BrokenOff(Bytes),
    /// Another reply, after this delay.
    After(Duration, Box<Self>),
    /// No reply while the client waits.
    Hang,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    count: watch::Sender<usize>,
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
}

impl Receiver {
    /// Listens on a free port of loopback; every path replies with 200 until it is scripted.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same on a free port of another address of this machine, such as [`crate::Node::host_address`].
    ///
    /// # Errors
    /// If the address is not local, or has no free port.
    pub async fn start_at(address: Ipv4Addr) -> Result<Self> {
        let shared = Arc::new(Shared {
            requests: Mutex::new(Vec::new()),
            count: watch::Sender::new(0),
            scripts: Mutex::new(HashMap::new()),
        });
        let listener = background::run(async move {
            TcpListener::bind((address, 0))
                .await
                .with_context(|| format!("cannot listen on {address}"))
        })
        .await?;
        let address = listener.local_addr().context("a listener has no address")?;
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let serving = background::start(async move {
            // Returns only with the task, when the receiver is dropped.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            shared,
            serving,
        })
    }

    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the replies of a path: used one after the other; the last one repeats.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.shared.scripts).insert(path.to_owned(), replies.into_iter().collect());
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// The requests to one path.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        let requests = lock(&self.shared.requests);
        requests
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// Waits until the requests so far satisfy `enough`, and returns them.
    ///
    /// # Errors
    /// If they do not `within` that time; the error lists the requests that arrived.
    pub async fn wait_for(
        &self,
        enough: impl Fn(&[Request]) -> bool,
        within: Duration,
    ) -> Result<Vec<Request>> {
        let mut count = self.shared.count.subscribe();
        let arrived = count.wait_for(|_| enough(&lock(&self.shared.requests)));
        let in_time = tokio::time::timeout(within, arrived).await.is_ok();
        let requests = self.requests();
        anyhow::ensure!(
            in_time,
            "unexpected requests within {within:?}: {:?}",
            requests
                .iter()
                .map(|request| (
                    &request.method,
                    &request.path,
                    String::from_utf8_lossy(&request.body)
                ))
                .collect::<Vec<_>>()
        );
        Ok(requests)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT_BYTES).await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let reply = shared.next_reply(parts.uri.path());
    lock(&shared.requests).push(Request {
        method: parts.method.to_string(),
        path,
        headers: parts.headers,
        body,
        at: Instant::now(),
    });
    shared.count.send_modify(|count| *count += 1);
    respond(reply).await
}

impl Shared {
    fn next_reply(&self, path: &str) -> Reply {
        let mut scripts = lock(&self.scripts);
        match scripts.get_mut(path) {
            Some(script) if script.len() > 1 => script.pop_front(),
            Some(script) => script.front().cloned(),
            None => None,
        }
        .unwrap_or(Reply::Status(200))
    }
}

async fn respond(mut reply: Reply) -> Response<Body> {
    while let Reply::After(delay, then) = reply {
        tokio::time::sleep(delay).await;
        reply = *then;
    }
    match reply {
        Reply::Status(code) => {
            status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        }
        Reply::Redirect(url) => with(StatusCode::FOUND, header::LOCATION, &url, Body::empty()),
        Reply::RedirectPost(url) => with(
            StatusCode::TEMPORARY_REDIRECT,
            header::LOCATION,
            &url,
            Body::empty(),
        ),
        Reply::Content(kind, bytes) => with(StatusCode::OK, header::CONTENT_TYPE, &kind, Body::from(bytes)),
        Reply::BrokenOff(bytes) => {
            let end = async {
                // Bytes written before the error are sent only after a pause.
                tokio::time::sleep(BREAK_DELAY).await;
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            };
            let body = stream::once(async { Ok(bytes) }).chain(stream::once(end));
            with(
                StatusCode::OK,
                header::CONTENT_TYPE,
                "application/octet-stream",
                Body::from_stream(body),
            )
        }
        Reply::Hang | Reply::After(..) => std::future::pending().await,
    }
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

fn with(code: StatusCode, name: header::HeaderName, value: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    match value.parse() {
        Ok(value) => {
            response.headers_mut().insert(name, value);
            response
        }
        Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
