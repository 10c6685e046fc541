//! An HTTP/1 server with a limit on connections, time limits for slow clients, and a graceful shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::write_timeout::WriteTimeout;

/// Pause after a connection could not be accepted, usually because the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum of simultaneous connections; further ones wait to be accepted. Each takes about 20 kB.
    pub connections: usize,
    /// How long a client may take to send the headers of a request, and how long a connection may be idle.
    pub headers: Duration,
    /// How long a client may stop reading a response.
    pub stall: Duration,
    /// Time limit of a connection, which then serves a single request. `None`: no limit, and any number of requests.
    pub connection: Option<Duration>,
}

impl Limits {
    /// Limits of an endpoint for probes and metrics: small requests, each on its own connection.
    pub const ADMIN: Self = Self {
        connections: 64,
        headers: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        connection: Some(Duration::from_secs(10)),
    };

    /// Limits of an API that accepts songs; reading a body has its own limits.
    pub const API: Self = Self {
        connections: 1024,
        headers: Duration::from_secs(30),
        stall: Duration::from_secs(30),
        connection: None,
    };
}

/// Serves until `stop`, then finishes running requests for at most `shutdown_limit`. Returns whether all of them
/// finished.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    shutdown_limit: Duration,
) -> bool {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let aborted = CancellationToken::new();
    let _abort_on_drop = aborted.clone().drop_guard();
    let router = TowerToHyperService::new(router);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "Connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let service = service_fn(move |request| route(&router, request, peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.headers)
            .keep_alive(limits.connection.is_none())
            .serve_connection(TokioIo::new(WriteTimeout::new(stream, limits.stall)), service);
        let connection = graceful.watch(connection);
        let aborted = aborted.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, %peer, "Connection ended");
                    }
                }
                () = time_limit(limits.connection) => tracing::debug!(%peer, "Connection closed: time limit exceeded"),
                () = aborted.cancelled() => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    tokio::time::timeout(shutdown_limit, graceful.shutdown())
        .await
        .is_ok()
}

/// Passes a request to the router, with the client's address as an extension.
fn route(
    router: &TowerToHyperService<Router>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.call(request)
}

async fn time_limit(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(connections)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    // Responses are small, so Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    Ok((stream, peer, slot))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::body::Bytes;
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::DropGuard;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn start_server(router: Router, limits: Limits) -> (SocketAddr, DropGuard) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let shutdown_limit = Duration::from_secs(1);
        tokio::spawn(serve(listener, router, limits, stop.clone(), shutdown_limit));
        (address, stop.drop_guard())
    }

    fn hello() -> Router {
        Router::new().route("/", get(async || "hello"))
    }

    /// Everything until the server closes the connection.
    async fn read(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset also ends the connection.
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn a_connection_with_a_limit_serves_one_request() {
        let (address, _stop) = start_server(hello(), Limits::ADMIN).await;
        let mut stream = TcpStream::connect(address).await.expect("a server");
        stream.write_all(REQUEST).await.expect("it reads");
        let answer = read(stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"),
            "{answer}"
        );
    }

    // The paused clock advances automatically while every task waits.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_half_a_request_is_disconnected() {
        for limits in [Limits::ADMIN, Limits::API] {
            let (address, _stop) = start_server(hello(), limits).await;
            let mut stream = TcpStream::connect(address).await.expect("a server");
            stream.write_all(&REQUEST[..20]).await.expect("it reads");
            read(stream).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_disconnected() {
        let piece = || Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536]));
        let endless = async move || Body::from_stream(stream::repeat_with(piece));
        let slots = Limits {
            connections: 1,
            ..Limits::API
        };
        let (address, _stop) = start_server(Router::new().route("/", get(endless)), slots).await;
        let mut stalled = TcpStream::connect(address).await.expect("a server");
        stalled.write_all(REQUEST).await.expect("it reads");
        // The only slot is free again once the first client was disconnected.
        let mut next = TcpStream::connect(address).await.expect("it listens");
        next.write_all(REQUEST).await.expect("it reads");
        let mut head = [0; 15];
        next.read_exact(&mut head).await.expect("it answers");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }

    #[tokio::test(start_paused = true)]
    async fn further_clients_wait_for_a_slot() {
        let one = Limits {
            connections: 1,
            ..Limits::ADMIN
        };
        let (address, _stop) = start_server(hello(), one).await;
        let slow = TcpStream::connect(address).await.expect("a server");
        let mut next = TcpStream::connect(address).await.expect("it listens");
        next.write_all(REQUEST).await.expect("it reads");
        assert!(read(next).await.ends_with("hello"));
        assert_eq!(read(slow).await, "");
    }
}
