//! Owned partitions that have delivered nothing since their assignment. Pure: no client, no clock.
//!
//! librdkafka asks the coordinator once for a partition's committed offset. If the coordinator moves at that moment,
//! the partition is never read, and the only sign is an error without a partition. A partition that is read delivers a
//! message or its end immediately.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a partition may deliver nothing at first: enough for two offset requests and a fetch that waits 500 ms.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest such time; it doubles with each reassignment, since unreachable brokers deliver nothing either.
const MAX_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The partitions that have delivered nothing, each with its deadline.
#[derive(Debug)]
pub(super) struct StallDetector {
    deadlines: BTreeMap<i32, Instant>,
    timeout: Duration,
}

impl Default for StallDetector {
    fn default() -> Self {
        Self {
            deadlines: BTreeMap::new(),
            timeout: STALL_TIMEOUT,
        }
    }
}

impl StallDetector {
    /// Partitions were assigned at `now`.
    pub(super) fn assigned(&mut self, partitions: &[i32], now: Instant) {
        let until = now + self.timeout;
        self.deadlines
            .extend(partitions.iter().map(|&partition| (partition, until)));
    }

    /// A partition delivered a message or its end.
    pub(super) fn delivered(&mut self, partition: i32) {
        if self.deadlines.remove(&partition).is_some() && self.deadlines.is_empty() {
            self.timeout = STALL_TIMEOUT;
        }
    }

    /// Partitions were revoked or lost.
    pub(super) fn removed(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.deadlines.remove(partition);
        }
    }

    /// Messages may be delivered from `now` on. Deadlines that have not expired begin again.
    pub(super) fn reading_from(&mut self, now: Instant) {
        let until = now + self.timeout;
        for deadline in self.deadlines.values_mut().filter(|until| **until > now) {
            *deadline = until;
        }
    }

    /// The earliest deadline. `None` if all partitions have delivered something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }

    /// Partitions past their deadline at `now`. Their next deadline is twice as far away.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<i32> {
        let stalled = self.deadlines.iter().filter(|(_, until)| **until <= now);
        let overdue: Vec<_> = stalled.map(|(&partition, _)| partition).collect();
        if !overdue.is_empty() {
            self.timeout = (self.timeout * 2).min(MAX_STALL_TIMEOUT);
            self.assigned(&overdue, now);
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_partition_is_overdue_and_its_next_timeout_doubles() {
        let start = Instant::now();
        let mut stalls = StallDetector::default();
        stalls.assigned(&[0, 1], start);
        stalls.delivered(0);
        assert_eq!(stalls.next_deadline(), Some(start + STALL_TIMEOUT));
        assert_eq!(stalls.overdue(start), Vec::<i32>::new());
        let first = start + STALL_TIMEOUT;
        assert_eq!(stalls.overdue(first), [1]);
        assert_eq!(stalls.next_deadline(), Some(first + STALL_TIMEOUT * 2));
        stalls.delivered(1);
        assert_eq!(stalls.next_deadline(), None);
        stalls.assigned(&[2], first);
        assert_eq!(stalls.next_deadline(), Some(first + STALL_TIMEOUT));
    }

    #[test]
    fn the_timeout_has_a_maximum() {
        let mut now = Instant::now();
        let mut stalls = StallDetector::default();
        stalls.assigned(&[0], now);
        for _ in 0..10 {
            now = stalls.next_deadline().unwrap();
            assert_eq!(stalls.overdue(now), [0]);
        }
        assert_eq!(stalls.next_deadline(), Some(now + MAX_STALL_TIMEOUT));
        stalls.removed(&[0]);
        assert_eq!(stalls.next_deadline(), None);
    }

    #[test]
    fn time_before_messages_may_be_delivered_does_not_count_unless_a_deadline_has_expired() {
        let start = Instant::now();
        let mut stalls = StallDetector::default();
        stalls.assigned(&[1], start);
        stalls.assigned(&[0], start + STALL_TIMEOUT / 2);
        let later = start + STALL_TIMEOUT;
        stalls.reading_from(later);
        assert_eq!(stalls.overdue(later), [1]);
        stalls.removed(&[1]);
        assert_eq!(stalls.next_deadline(), Some(later + STALL_TIMEOUT));
    }
}
