//! A front before the S3 server that fails requests as a test tells it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// More than any object of a test.
const BODY_LIMIT_BYTES: usize = 64 << 20;

/// What is sent before a break arrives only if the break comes later.
const BEFORE_THE_BREAK: Duration = Duration::from_millis(100);

/// How a request is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This status, without asking the server.
    Status(u16),
    /// Half of the server's answer and then a broken connection.
    Cut,
    /// The server's own answer to the request with another signature, as after its secret key was changed.
    WrongSecret,
}

/// A request, as a test decides about it.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// How often the same was asked before.
    pub(crate) before: u32,
}

type Script = Box<dyn Fn(&Asked<'_>) -> Option<Fault> + Send + Sync>;

/// The front; it ends when this is dropped.
pub(crate) struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    client: reqwest::Client,
    script: Script,
    asked: Mutex<HashMap<String, u32>>,
    failed: Mutex<Vec<String>>,
}

impl Front {
    /// Listens before `upstream` and fails what `script` says.
    pub(crate) async fn start(
        upstream: SocketAddr,
        script: impl Fn(&Asked<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            upstream,
            client: crate::rig::http(),
            script: Box::new(script),
            asked: Mutex::default(),
            failed: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            serving,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was failed so far: method, path, and how.
    pub(crate) fn failed(&self) -> Vec<String> {
        self.shared.failed.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn decide(&self, method: &Method, uri: &Uri) -> Option<Fault> {
        // The names of an upload and its parts differ each time it is tried.
        let query = uri.query().unwrap_or_default().split('&');
        let names: Vec<_> = query
            .map(|pair| pair.split('=').next().unwrap_or_default())
            .collect();
        let what = format!("{method} {}?{}", uri.path(), names.join("&"));
        let before = {
            let mut asked = self.asked.lock().unwrap();
            let count = asked.entry(what.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let path = uri.path();
        let fault = (self.script)(&Asked { method, path, before });
        if let Some(fault) = fault {
            self.failed.lock().unwrap().push(format!("{what} {fault:?}"));
        }
        fault
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let fault = shared.decide(&parts.method, &parts.uri);
    let body = axum::body::to_bytes(body, BODY_LIMIT_BYTES).await;
    if let (Some(Fault::Status(status)), _) | (_, Err(status)) = (fault, body.as_ref().map_err(|_| 400)) {
        return answer(
            StatusCode::from_u16(status).unwrap(),
            HeaderMap::new(),
            Body::empty(),
        );
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let url = format!("http://{}{target}", shared.upstream);
    // The host is part of what is signed, so it stays the front's.
    let mut headers = parts.headers;
    if fault == Some(Fault::WrongSecret)
        && let Some(authorization) = headers.get(header::AUTHORIZATION)
    {
        let signed = authorization.to_str().unwrap();
        let other = if signed.ends_with('0') { "1" } else { "0" };
        let forged = format!("{}{other}", &signed[..signed.len() - 1]);
        headers.insert(header::AUTHORIZATION, forged.parse().unwrap());
    }
    let forwarded = shared.client.request(parts.method, url).headers(headers);
    let Ok(reply) = forwarded.body(body.unwrap_or_default()).send().await else {
        return answer(StatusCode::BAD_GATEWAY, HeaderMap::new(), Body::empty());
    };
    let (status, headers) = (reply.status(), reply.headers().clone());
    let content = reply.bytes().await.unwrap_or_default();
    let body = match fault {
        Some(Fault::Cut) => {
            let half = content.slice(..content.len() / 2);
            let broken = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            let pause = async move {
                let _ = tokio::time::timeout(BEFORE_THE_BREAK, std::future::pending::<()>()).await;
                broken
            };
            Body::from_stream(stream::once(async { Ok(half) }).chain(stream::once(pause)))
        }
        _ => Body::from(content),
    };
    answer(status, headers, body)
}

fn answer(status: StatusCode, mut headers: HeaderMap, body: Body) -> Response {
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
