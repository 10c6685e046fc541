//! Limits repeated log lines: librdkafka reports the same lost connection many times. Pure: no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Minimum time between two log lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Time of the last log line of each kind. Kinds are error codes and librdkafka's facilities: a bounded number.
#[derive(Debug)]
pub(super) struct LogThrottle<K> {
    logged: BTreeMap<K, Instant>,
}

impl<K: Ord> LogThrottle<K> {
    pub(super) const fn new() -> Self {
        Self {
            logged: BTreeMap::new(),
        }
    }

    /// Whether an error of this kind is logged at `now`; records it if so.
    pub(super) fn should_log(&mut self, kind: K, now: Instant) -> bool {
        let last = self.logged.get(&kind);
        let is_due = last.is_none_or(|&last| now.saturating_duration_since(last) >= PAUSE);
        if is_due {
            self.logged.insert(kind, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_errors_of_one_kind_are_logged_at_intervals() {
        let start = Instant::now();
        let mut throttle = LogThrottle::new();
        assert!(throttle.should_log("a", start));
        assert!(!throttle.should_log("a", start + PAUSE / 2));
        assert!(throttle.should_log("b", start + PAUSE / 2));
        assert!(throttle.should_log("a", start + PAUSE));
    }
}
