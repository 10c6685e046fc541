//! Connections: taken in bounded numbers, given up when they say nothing, brought to their end at a shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The most connections at once; further ones wait to be taken. Each holds some 20 kB.
const MAX_CONNECTIONS: usize = 1024;

/// How long a caller may take to say what it wants, and how long a connection may wait for another request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait after a connection could not be taken, which means that the process has no files left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, and then for at most `limit` what is running. Gives whether all of that ended.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    limit: Duration,
) -> bool {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let aborted = CancellationToken::new();
    let _abort_what_is_left = aborted.clone().drop_guard();
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => break,
            taken = take(&listener, &connections) => taken,
        };
        let (stream, slot) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(error = %error, "Connection not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        let aborted = aborted.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, "Connection ended");
                    }
                }
                () = aborted.cancelled() => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    tokio::time::timeout(limit, graceful.shutdown()).await.is_ok()
}

async fn take(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(connections)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    // Answers are small; they are not to wait for more.
    let _ = stream.set_nodelay(true);
    Ok((stream, slot))
}
