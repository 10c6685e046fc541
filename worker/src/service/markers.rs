//! When to search for transaction markers after the last message of a partition. Pure: no client, no clock.
//!
//! Markers count as lag until an offset after them is committed, which happens only while no message is processed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Idle time before the first search.
const IDLE: Duration = Duration::from_secs(1);

/// Minimum time between two searches in one partition.
const PAUSE: Duration = Duration::from_secs(10);

/// The partitions to search.
#[derive(Debug)]
pub(super) struct Markers {
    idle_since: Instant,
    /// Partitions whose end was reached since their last search.
    ended: BTreeSet<i32>,
    /// Times of the last searches.
    searched_at: BTreeMap<i32, Instant>,
}

impl Markers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            idle_since: now,
            ended: BTreeSet::new(),
            searched_at: BTreeMap::new(),
        }
    }

    /// The processing of a message has ended.
    pub(super) fn idle(&mut self, now: Instant) {
        self.idle_since = now;
    }

    pub(super) fn assignment_changed(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The end of a partition was reached, past its messages and markers.
    pub(super) fn end_reached(&mut self, partition: i32) {
        self.ended.insert(partition);
    }

    /// Time of the next search; `None` if no partition needs one.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.ended.iter().map(|&partition| self.due_at(partition));
        due.min()
    }

    /// Removes and returns the partitions to search at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Vec<i32> {
        let ended = self.ended.iter().copied();
        let taken: Vec<_> = ended.filter(|&partition| self.due_at(partition) <= now).collect();
        for &partition in &taken {
            self.ended.remove(&partition);
            self.searched_at.insert(partition, now);
        }
        taken
    }

    /// A search failed: it is due again.
    pub(super) fn again(&mut self, partitions: &[i32]) {
        self.ended.extend(partitions);
    }

    fn due_at(&self, partition: i32) -> Instant {
        let idle = self.idle_since + IDLE;
        let searched_at = self.searched_at.get(&partition);
        searched_at.map_or(idle, |&searched_at| idle.max(searched_at + PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_searched_once_while_idle() {
        let start = Instant::now();
        let mut markers = Markers::new(start);
        assert_eq!(markers.due(), None);
        markers.end_reached(3);
        assert_eq!(markers.due(), Some(start + IDLE));
        assert_eq!(markers.take(start), Vec::<i32>::new());
        markers.idle(start + IDLE);
        assert_eq!(markers.due(), Some(start + IDLE * 2));
        assert_eq!(markers.take(start + IDLE * 2), [3]);
        assert_eq!(markers.due(), None);
    }

    #[test]
    fn a_partition_is_searched_at_intervals() {
        let start = Instant::now();
        let mut markers = Markers::new(start);
        markers.end_reached(0);
        let first = start + IDLE;
        assert_eq!(markers.take(first), [0]);
        markers.end_reached(0);
        markers.end_reached(1);
        assert_eq!(markers.take(first), [1]);
        assert_eq!(markers.due(), Some(first + PAUSE));
        markers.again(&[1]);
        assert_eq!(markers.take(first + PAUSE), [0, 1]);
    }

    #[test]
    fn a_new_assignment_resets_the_searches() {
        let start = Instant::now();
        let mut markers = Markers::new(start);
        markers.end_reached(0);
        markers.assignment_changed(start);
        assert_eq!(markers.due(), None);
    }
}
