//! Asking a process to end: the first signal drains, the second aborts. What else asks for a drain is no signal.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long who asked for a drain at the endpoint gets to hear of its end: ten times the time between two looks.
const HEARD_LIMIT: Duration = Duration::from_secs(2);

/// Requests to end; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take nothing further; what runs goes on to its end.
    pub drain: CancellationToken,
    /// End at once.
    pub abort: CancellationToken,
    /// The drain was asked for at the endpoint, by somebody who waits for its end.
    pub awaited: CancellationToken,
    /// A signal has come.
    pub signalled: CancellationToken,
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

    /// Lets who asked for the drain at the endpoint hear that it is over: a container ends with this process, and a
    /// preStop hook that still runs in it has failed. Once the hook has ended a signal comes.
    pub async fn wait_until_heard(&self) {
        if self.awaited.is_cancelled() {
            // Nobody may have been there to the end.
            let _ = tokio::time::timeout(HEARD_LIMIT, self.signalled.cancelled()).await;
        }
    }
}

async fn watch(shutdown: Shutdown, mut terminate: Signal, mut interrupt: Signal) {
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if shutdown.signalled.is_cancelled() {
            tracing::warn!("Received {name} again, ending at once");
            shutdown.abort.cancel();
            return;
        }
        shutdown.signalled.cancel();
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
    async fn only_who_asked_at_the_endpoint_is_waited_for_until_a_signal() {
        let begin = tokio::time::Instant::now();
        let shutdown = Shutdown::default();
        shutdown.drain.cancel();
        shutdown.wait_until_heard().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        shutdown.awaited.cancel();
        shutdown.wait_until_heard().await;
        assert!(begin.elapsed() >= HEARD_LIMIT);
        let begin = tokio::time::Instant::now();
        shutdown.signalled.cancel();
        shutdown.wait_until_heard().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
