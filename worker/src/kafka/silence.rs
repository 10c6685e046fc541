//! Owned partitions of which nothing came since they were taken. Pure: no client, no clock.
//!
//! librdkafka asks the coordinator once where a partition begins. If the coordinator moves just then, that partition is
//! never read, and all that is said is an error of no partition. One that is read shows a message or its end at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a partition may be silent at first: where it begins is asked twice over, and a fetch waits half a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest silence, after doubling it each time: brokers that are away are silent too.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// Which partitions are silent, and until when each may be.
#[derive(Debug)]
pub(super) struct Silence {
    until: BTreeMap<i32, Instant>,
    patience: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            until: BTreeMap::new(),
            patience: PATIENCE,
        }
    }
}

impl Silence {
    /// Partitions were taken at `now`.
    pub(super) fn taken(&mut self, partitions: &[i32], now: Instant) {
        let until = now + self.patience;
        self.until
            .extend(partitions.iter().map(|&partition| (partition, until)));
    }

    /// Something came of a partition.
    pub(super) fn heard(&mut self, partition: i32) {
        if self.until.remove(&partition).is_some() && self.until.is_empty() {
            self.patience = PATIENCE;
        }
    }

    /// A partition is to be taken anew as soon as may be.
    pub(super) fn suspect(&mut self, partition: i32, now: Instant) {
        self.until.insert(partition, now);
    }

    /// Partitions went.
    pub(super) fn gone(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.until.remove(partition);
        }
    }

    /// From `now` on somebody listens; silence before that says nothing.
    pub(super) fn listening(&mut self, now: Instant) {
        let until = now + self.patience;
        for earlier in self.until.values_mut().filter(|until| **until > now) {
            *earlier = until;
        }
    }

    /// When to look for partitions that were silent too long. Nothing if none is silent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }

    /// Partitions that were silent too long at `now`. They are waited for anew, and longer.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<i32> {
        let silent = self.until.iter().filter(|(_, until)| **until <= now);
        let overdue: Vec<_> = silent.map(|(&partition, _)| partition).collect();
        if !overdue.is_empty() {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            self.taken(&overdue, now);
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_of_which_nothing_comes_is_overdue_and_then_waited_for_longer() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.taken(&[0, 1], start);
        silence.heard(0);
        assert_eq!(silence.due(), Some(start + PATIENCE));
        assert_eq!(silence.overdue(start), Vec::<i32>::new());
        let first = start + PATIENCE;
        assert_eq!(silence.overdue(first), [1]);
        assert_eq!(silence.due(), Some(first + PATIENCE * 2));
        silence.heard(1);
        assert_eq!(silence.due(), None);
        silence.taken(&[2], first);
        assert_eq!(silence.due(), Some(first + PATIENCE));
    }

    #[test]
    fn waiting_has_a_bound() {
        let mut now = Instant::now();
        let mut silence = Silence::default();
        silence.taken(&[0], now);
        for _ in 0..10 {
            now = silence.due().unwrap();
            assert_eq!(silence.overdue(now), [0]);
        }
        assert_eq!(silence.due(), Some(now + MOST_PATIENCE));
        silence.gone(&[0]);
        assert_eq!(silence.due(), None);
    }

    #[test]
    fn silence_while_nobody_listens_does_not_count_but_a_suspicion_does() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.taken(&[0], start);
        let later = start + PATIENCE / 2;
        silence.suspect(1, later);
        silence.listening(later);
        assert_eq!(silence.overdue(later), [1]);
        silence.gone(&[1]);
        assert_eq!(silence.due(), Some(later + PATIENCE));
    }
}
