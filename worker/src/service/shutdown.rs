//! Shutdown requests: the first signal drains, the second aborts. Drain requests from other sources are not signals.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the process stays after a drain that was requested at the endpoint, so that the client sees its end: ten
/// times the client's poll interval.
const DRAIN_CLIENT_LIMIT: Duration = Duration::from_secs(2);

/// Shutdown requests; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Accept no further message; finish the running one.
    pub drain: CancellationToken,
    /// Exit immediately.
    pub abort: CancellationToken,
    /// The drain was requested at the endpoint, by a client that waits for its end.
    pub awaited: CancellationToken,
    /// A signal was received.
    pub signaled: CancellationToken,
}

impl Shutdown {
    /// Requests from SIGTERM and SIGINT, which are handled alike. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When no handler can be installed.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(watch(shutdown.clone(), terminate, interrupt));
        Ok(shutdown)
    }

    /// Gives the client that requested the drain at the endpoint time to see its end: the container ends with this
    /// process, and a preStop hook that is still running then counts as failed. After the hook, SIGTERM follows.
    pub async fn wait_for_drain_client(&self) {
        if self.awaited.is_cancelled() {
            // The client may have disconnected.
            let _ = tokio::time::timeout(DRAIN_CLIENT_LIMIT, self.signaled.cancelled()).await;
        }
    }
}

async fn watch(shutdown: Shutdown, mut terminate: Signal, mut interrupt: Signal) {
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if shutdown.signaled.is_cancelled() {
            tracing::warn!("Received {name} again, exiting immediately");
            shutdown.abort.cancel();
            return;
        }
        shutdown.signaled.cancel();
        if shutdown.drain.is_cancelled() {
            tracing::info!("Received {name} while draining");
        } else {
            tracing::info!("Received {name}, initiating graceful shutdown...");
            shutdown.drain.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_requested_a_drain_is_waited_for_until_a_signal() {
        let begin = tokio::time::Instant::now();
        let shutdown = Shutdown::default();
        shutdown.drain.cancel();
        shutdown.wait_for_drain_client().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        shutdown.awaited.cancel();
        shutdown.wait_for_drain_client().await;
        assert!(begin.elapsed() >= DRAIN_CLIENT_LIMIT);
        let begin = tokio::time::Instant::now();
        shutdown.signaled.cancel();
        shutdown.wait_for_drain_client().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
