//! A proxy in front of the S3 server that fails requests as a test specifies.

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

/// Delay before a connection is broken, so that the data sent before arrives.
const BREAK_DELAY: Duration = Duration::from_millis(100);

/// How a request is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This status, without forwarding the request.
    Status(u16),
    /// Half of the server's response, then a broken connection.
    Cut,
    /// The server's response to the request with another signature, as after a change of its secret access key.
    WrongSecret,
}

/// A request, for which a test decides how it fails.
#[derive(Debug)]
pub(crate) struct ProxiedRequest<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// How often the same request was sent before.
    pub(crate) before: u32,
}

type Script = Box<dyn Fn(&ProxiedRequest<'_>) -> Option<Fault> + Send + Sync>;

/// The proxy; dropping it stops it.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    client: reqwest::Client,
    script: Script,
    seen: Mutex<HashMap<String, u32>>,
    failed: Mutex<Vec<String>>,
}

impl FaultProxy {
    /// Forwards to `upstream` and fails the requests that `script` selects.
    pub(crate) async fn start(
        upstream: SocketAddr,
        script: impl Fn(&ProxiedRequest<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            upstream,
            client: crate::rig::http(),
            script: Box::new(script),
            seen: Mutex::default(),
            failed: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(forward).with_state(Arc::clone(&shared));
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

    /// The failed requests so far: method, path and fault.
    pub(crate) fn failed(&self) -> Vec<String> {
        self.shared.failed.lock().unwrap().clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn decide(&self, method: &Method, uri: &Uri) -> Option<Fault> {
        // The query values of a multipart upload differ with each try.
        let query = uri.query().unwrap_or_default().split('&');
        let names: Vec<_> = query
            .map(|pair| pair.split('=').next().unwrap_or_default())
            .collect();
        let request_key = format!("{method} {}?{}", uri.path(), names.join("&"));
        let before = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry(request_key.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let path = uri.path();
        let fault = (self.script)(&ProxiedRequest { method, path, before });
        if let Some(fault) = fault {
            self.failed
                .lock()
                .unwrap()
                .push(format!("{request_key} {fault:?}"));
        }
        fault
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
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
    // The host is part of the signature, so that of the proxy is kept.
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
                let _ = tokio::time::timeout(BREAK_DELAY, std::future::pending::<()>()).await;
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
