//! The time that decisions take as an argument: monotonic, counted from the start of the process.

use std::time::Duration;

use tokio::time::Instant;

use crate::decide::Moment;

/// A monotonic clock; copies share one start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at 1 ms rather than 0, so that nothing can have happened at `Moment::default()`.
    pub fn start() -> Self {
        Self {
            start: Instant::now() - Duration::from_millis(1),
        }
    }

    /// The time since the start, in milliseconds.
    pub fn now(self) -> Moment {
        let elapsed = self.start.elapsed().as_millis();
        // A process lives less than 500 million years.
        Moment::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}
