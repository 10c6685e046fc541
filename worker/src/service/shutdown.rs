//! Asking a process to end: the first signal drains, the second aborts.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Requests to end; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take nothing further; what runs goes on to its end.
    pub drain: CancellationToken,
    /// End at once.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Requests that come from SIGTERM and SIGINT, both alike. To be called within a runtime.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(watch(shutdown.clone(), terminate, interrupt));
        Ok(shutdown)
    }
}

async fn watch(shutdown: Shutdown, mut terminate: Signal, mut interrupt: Signal) {
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if shutdown.drain.is_cancelled() {
            tracing::warn!("Received {name} again, ending at once");
            shutdown.abort.cancel();
            return;
        }
        tracing::info!("Received {name}, initiating graceful shutdown...");
        shutdown.drain.cancel();
    }
}
