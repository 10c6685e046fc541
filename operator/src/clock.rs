//! Time as decisions count it: since the process started, and never backwards.

use std::time::Duration;

use tokio::time::Instant;

use crate::decide::Moment;

/// Counts from when it was made; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts to count, at a moment that is not the first one: nothing happened before it.
    pub fn start() -> Self {
        Self {
            start: Instant::now() - Duration::from_millis(1),
        }
    }

    /// Now.
    pub fn now(self) -> Moment {
        let elapsed = self.start.elapsed().as_millis();
        // A process lives less than 500 million years.
        Moment::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}
