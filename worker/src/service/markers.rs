//! When to look behind the last message of a partition for markers of transactions. Pure: no client, no clock.
//!
//! Markers count as waiting messages until they are stepped over, which only happens while nothing is worked on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long nothing was worked on before the first look.
const IDLE: Duration = Duration::from_secs(1);

/// The least time between two looks at one partition.
const PAUSE: Duration = Duration::from_secs(10);

/// Which partitions are worth a look.
#[derive(Debug)]
pub(super) struct Markers {
    idle_since: Instant,
    /// Partitions whose end was reached since the last look at them.
    ended: BTreeSet<i32>,
    /// When partitions were looked at.
    looked_at: BTreeMap<i32, Instant>,
}

impl Markers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            idle_since: now,
            ended: BTreeSet::new(),
            looked_at: BTreeMap::new(),
        }
    }

    /// The work on a message has ended.
    pub(super) fn idle(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// Other partitions are owned now.
    pub(super) fn assignment_changed(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Everything in a partition was seen: messages and markers.
    pub(super) fn end_reached(&mut self, partition: i32) {
        self.ended.insert(partition);
    }

    /// When the next look is due, if there is a reason for one.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.ended.iter().map(|&partition| self.due_of(partition));
        due.min()
    }

    /// Partitions to look at now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<i32> {
        let ended = self.ended.iter().copied();
        let taken: Vec<_> = ended.filter(|&partition| self.due_of(partition) <= now).collect();
        for &partition in &taken {
            self.ended.remove(&partition);
            self.looked_at.insert(partition, now);
        }
        taken
    }

    /// A look came to nothing: it is due again.
    pub(super) fn again(&mut self, partitions: &[i32]) {
        self.ended.extend(partitions);
    }

    fn due_of(&self, partition: i32) -> Instant {
        let idle = self.idle_since + IDLE;
        let looked_at = self.looked_at.get(&partition);
        looked_at.map_or(idle, |&looked_at| idle.max(looked_at + PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_looked_at_once_when_nothing_is_worked_on() {
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
    fn a_partition_is_looked_at_now_and_then_only() {
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
    fn another_assignment_begins_anew() {
        let start = Instant::now();
        let mut markers = Markers::new(start);
        markers.end_reached(0);
        markers.assignment_changed(start);
        assert_eq!(markers.due(), None);
    }
}
