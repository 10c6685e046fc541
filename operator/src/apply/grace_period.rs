//! Grace period of a worker's pod.

use std::time::Duration;

use separation_contract::kafka::{CLOSE_MARGIN, Timings};

/// Grace period of a pod, to finish its task and shut down: `max.poll.interval.ms`, rounded up to seconds, and a
/// margin.
pub fn grace_period(timings: &Timings) -> Duration {
    let seconds = timings.max_poll_interval.as_millis().div_ceil(1_000);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)) + CLOSE_MARGIN
}
