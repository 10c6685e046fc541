//! Cancellation and progress of a separation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Requests that a separation stop; clones share the request.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not canceled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the stop, which happens after the current chunk.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the stop was requested.
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Conditions that end a separation early.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Stops the separation when canceled.
    pub cancel: CancelToken,
    /// Stops the separation at this time.
    pub deadline: Option<Instant>,
}

/// Why a separation ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was canceled.
    #[error("canceled")]
    Canceled,
    /// Its deadline passed.
    #[error("not done by the deadline")]
    DeadlineExceeded,
}

impl Control {
    /// Whether to continue, at `now`.
    ///
    /// # Errors
    /// If the separation must stop.
    pub fn check(&self, now: Instant) -> Result<(), Stopped> {
        if self.cancel.is_canceled() {
            return Err(Stopped::Canceled);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Stopped::DeadlineExceeded);
        }
        Ok(())
    }
}

/// Progress of a separation, in frames at 44.1 kHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Final frames of the stems.
    pub done_frames: u64,
    /// Frames of the complete song, if known.
    pub expected_frames: Option<u64>,
    /// Whether the expected number is only an estimate, which may be wrong by any factor.
    pub is_estimate: bool,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_counts_from_its_moment_on() {
        let now = Instant::now();
        let control = Control {
            deadline: Some(now + Duration::from_secs(1)),
            ..Control::default()
        };
        assert_eq!(control.check(now), Ok(()));
        assert_eq!(
            control.check(now + Duration::from_secs(1)),
            Err(Stopped::DeadlineExceeded)
        );
    }

    #[test]
    fn a_canceled_token_stops_every_clone() {
        let control = Control::default();
        control.clone().cancel.cancel();
        assert_eq!(control.check(Instant::now()), Err(Stopped::Canceled));
    }
}
