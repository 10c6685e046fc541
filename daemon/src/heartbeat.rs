//! Detects whether the main loop of a process is stuck.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// Time without a beat after which the main loop counts as stuck and the process must be restarted. Twice the longest
/// deadline of one step.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How often [`Heartbeat::during`] beats.
const PERIOD: Duration = Duration::from_secs(1);

/// Records that the main loop runs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    start: Instant,
    /// Milliseconds from the start to the last beat.
    last: Arc<AtomicU64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: Arc::default(),
        }
    }
}

impl Heartbeat {
    /// Records that the main loop runs now.
    pub fn beat(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// Runs `work` and beats every second from the same task: a call in `work` that blocks its thread stops the beats.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => self.beat(),
            }
        }
    }

    /// Time since the last beat, if it is long enough that the main loop counts as stuck.
    #[must_use]
    pub fn stuck_for(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let elapsed = self.start.elapsed().saturating_sub(last);
        (elapsed >= STUCK_AFTER).then_some(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_without_beats_counts_as_stuck_after_a_minute() {
        let heartbeat = Heartbeat::default();
        advance(Duration::from_secs(59)).await;
        assert_eq!(heartbeat.stuck_for(), None);
        advance(Duration::from_secs(2)).await;
        assert_eq!(heartbeat.stuck_for(), Some(Duration::from_secs(61)));
        heartbeat.beat();
        assert_eq!(heartbeat.stuck_for(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_waits_beats_and_work_that_blocks_does_not() {
        let heartbeat = Heartbeat::default();
        heartbeat.during(sleep(Duration::from_secs(300))).await;
        assert_eq!(heartbeat.stuck_for(), None);
        // Time passes in one poll, as in a call that blocks.
        let blocked = poll_fn(|context| {
            let _ = pin!(advance(Duration::from_secs(61))).poll(context);
            Poll::Ready(())
        });
        heartbeat.during(blocked).await;
        assert!(heartbeat.stuck_for().is_some());
    }
}
