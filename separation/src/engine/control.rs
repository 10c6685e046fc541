//! Stopping work in the middle, and saying how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Asks a separation to stop; clones share the request.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the stop. It happens after the chunk under way.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked for the stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What may end a separation before its audio does.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Ends it on request.
    pub cancel: CancelToken,
    /// Ends it at this moment.
    pub deadline: Option<Instant>,
}

/// Why a separation was ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// It took too long.
    #[error("not done by the deadline")]
    DeadlineExceeded,
}

impl Control {
    /// Whether to go on, at `now`.
    ///
    /// # Errors
    /// When the work is to end.
    pub fn check(&self, now: Instant) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Stopped::DeadlineExceeded);
        }
        Ok(())
    }
}

/// How far a separation is, in frames at 44.1 kHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Frames of the stems that are final.
    pub done_frames: u64,
    /// Frames of the whole song, where known.
    pub expected_frames: Option<u64>,
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
    fn a_cancelled_token_stops_every_clone() {
        let control = Control::default();
        control.clone().cancel.cancel();
        assert_eq!(control.check(Instant::now()), Err(Stopped::Cancelled));
    }
}
