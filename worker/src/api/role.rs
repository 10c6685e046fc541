//! The API's life: listening, serving, ending.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{App, server};

/// How long requests may go on after a signal.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How long what requests have left behind may take: queueing a task (30 s at the client) or removing a song (10 s).
const FINISH_LIMIT: Duration = Duration::from_secs(35);

/// How long messages may take that brokers have not confirmed.
pub(super) const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Serves `app` until `stop`, then ends what is running: requests, what they left behind, the producer. `abort` ends the
/// waiting.
pub async fn serve_until(app: App, listener: TcpListener, stop: CancellationToken, abort: CancellationToken) {
    let ending = async {
        if !server::serve(listener, app.router(), stop, DRAIN_LIMIT).await {
            tracing::warn!(
                limit_s = DRAIN_LIMIT.as_secs(),
                "Requests were still running and were cut"
            );
        }
        if tokio::time::timeout(FINISH_LIMIT, app.finish()).await.is_err() {
            tracing::warn!("Songs that were not queued may still be there");
        }
        app.close_queue(FLUSH_LIMIT).await;
    };
    tokio::select! {
        () = ending => {}
        () = abort.cancelled() => tracing::warn!("Aborted"),
    }
}
