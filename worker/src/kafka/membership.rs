//! Which partitions this member owns, and when it releases revoked ones. Pure: no client, no clock.
//!
//! The one rule: a revoked partition whose message is being processed is retained until the processing ends, unless the
//! partition is lost. A revocation is one event for all its partitions, so all of them are retained.

use std::collections::BTreeMap;
use std::time::Instant;

use separation_contract::offset_metadata::OffsetMetadata;

use super::message::Position;

/// What the client does with revoked partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RevokeDecision {
    /// Unassign them now.
    Release,
    /// Retain them until the running message is done; then unassign all of them.
    Retain,
}

/// Knowledge of a partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KnownCommit {
    Unknown,
    /// This member committed this offset, with this metadata, at this time.
    At(i64, OffsetMetadata, Instant),
}

/// Partitions of one topic that this member owns.
#[derive(Debug, Default)]
pub(super) struct Membership {
    owned: BTreeMap<i32, KnownCommit>,
    /// Partition of the running message.
    running: Option<i32>,
    /// Revoked partitions that are retained until the running message is done.
    retained: Vec<i32>,
    /// Doubts about the committed offsets of owned partitions.
    doubts: BTreeMap<i32, Doubt>,
    /// Number of assignment changes.
    changes: u64,
}

/// Doubts about the committed offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// Time since which the brokers report no committed offset.
    pub(super) missing_since: Option<Instant>,
    /// Whether the partition was moved to another offset.
    pub(super) moved: bool,
}

impl Membership {
    /// Owned partitions, retained ones included.
    pub(super) fn owned(&self) -> impl Iterator<Item = i32> {
        self.owned.keys().copied()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether revoked partitions are retained.
    pub(super) fn retains_revoked(&self) -> bool {
        !self.retained.is_empty()
    }

    pub(super) fn assign(&mut self, partitions: &[i32]) {
        self.changes += 1;
        self.owned.extend(
            partitions
                .iter()
                .map(|&partition| (partition, KnownCommit::Unknown)),
        );
    }

    pub(super) fn revoke(&mut self, partitions: &[i32]) -> RevokeDecision {
        self.changes += 1;
        if self.running.is_some_and(|running| partitions.contains(&running)) {
            self.retained = partitions.to_vec();
            return RevokeDecision::Retain;
        }
        self.forget(partitions);
        RevokeDecision::Release
    }

    /// Removes lost partitions. Returns whether that of the running message is among them.
    pub(super) fn lose(&mut self, partitions: &[i32]) -> bool {
        self.changes += 1;
        self.forget(partitions);
        self.retained.clear();
        let lost = self.running.filter(|running| partitions.contains(running));
        if lost.is_some() {
            // If the partition is assigned again, its messages may have been processed elsewhere.
            self.running = None;
        }
        lost.is_some()
    }

    /// Starts processing a message of `partition`. `None` if this member no longer owns it.
    pub(super) fn begin(&mut self, partition: i32) -> Option<()> {
        self.known_commit(partition)?;
        self.running = Some(partition);
        Some(())
    }

    /// Knowledge of the committed offset of a partition. `None` if this member does not own it.
    pub(super) fn known_commit(&self, partition: i32) -> Option<&KnownCommit> {
        self.owned.get(&partition)
    }

    /// Whether this member still owns the partition of the running message.
    pub(super) fn owns_running(&self) -> bool {
        self.running
            .is_some_and(|running| self.owned.contains_key(&running))
    }

    /// Records this member's commit at `now`.
    pub(super) fn record_commit(&mut self, position: Position, record: OffsetMetadata, now: Instant) {
        if let Some(known_commit) = self.owned.get_mut(&position.partition) {
            *known_commit = KnownCommit::At(position.offset, record, now);
            self.doubts.remove(&position.partition);
        }
    }

    pub(super) fn doubt(&self, partition: i32) -> Doubt {
        self.doubts.get(&partition).copied().unwrap_or_default()
    }

    /// Records that the brokers reported no committed offset for a partition at `now`.
    pub(super) fn record_missing(&mut self, partition: i32, now: Instant) {
        if self.owned.contains_key(&partition) {
            self.doubts
                .entry(partition)
                .or_default()
                .missing_since
                .get_or_insert(now);
        }
    }

    /// Resets a partition that is read from another offset: its committed offset is unknown again.
    pub(super) fn moved(&mut self, partition: i32) {
        if let Some(known_commit) = self.owned.get_mut(&partition) {
            *known_commit = KnownCommit::Unknown;
            let doubt = Doubt {
                missing_since: None,
                moved: true,
            };
            self.doubts.insert(partition, doubt);
        }
    }

    /// Ends the processing of a message. Returns the retained partitions, which the client unassigns now.
    pub(super) fn end(&mut self) -> Vec<i32> {
        self.running = None;
        let retained = std::mem::take(&mut self.retained);
        self.forget(&retained);
        retained
    }

    fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.owned.remove(partition);
            self.doubts.remove(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn revoked_partitions_without_the_running_message_are_released_immediately() {
        let mut membership = Membership::default();
        membership.assign(&[0, 1, 2]);
        assert_eq!(membership.begin(0), Some(()));
        assert_eq!(membership.revoke(&[1, 2]), RevokeDecision::Release);
        assert!(membership.owns_running());
        assert_eq!(membership.end(), Vec::<i32>::new());
        assert_eq!(membership.owned().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn revoked_partitions_with_the_running_message_are_retained_until_it_ends() {
        let mut membership = Membership::default();
        membership.assign(&[0, 1, 2]);
        membership.begin(1);
        assert_eq!(membership.revoke(&[1, 2]), RevokeDecision::Retain);
        assert!(membership.owns_running());
        assert_eq!(membership.end(), [1, 2]);
        assert_eq!(membership.owned().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn lost_partitions_are_not_retained() {
        let mut membership = Membership::default();
        membership.assign(&[0, 1]);
        membership.begin(1);
        membership.revoke(&[1]);
        assert!(membership.lose(&[0, 1]));
        assert!(!membership.owns_running());
        assert_eq!(membership.end(), Vec::<i32>::new());
        assert_eq!(membership.owned().count(), 0);
    }

    #[test]
    fn a_commit_is_known_until_the_partition_is_revoked() {
        let mut membership = Membership::default();
        membership.assign(&[3]);
        assert_eq!(membership.known_commit(3), Some(&KnownCommit::Unknown));
        let (now, third) = (
            Instant::now(),
            Position {
                partition: 3,
                offset: 8,
            },
        );
        membership.record_commit(third, OffsetMetadata::attempt(1), now);
        assert_eq!(
            membership.known_commit(3),
            Some(&KnownCommit::At(8, OffsetMetadata::attempt(1), now))
        );
        membership.record_missing(3, now);
        membership.moved(3);
        assert_eq!(membership.known_commit(3), Some(&KnownCommit::Unknown));
        assert!(membership.doubt(3).moved);
        membership.record_commit(third, OffsetMetadata::default(), now);
        membership.revoke(&[3]);
        membership.assign(&[3]);
        assert_eq!(membership.known_commit(3), Some(&KnownCommit::Unknown));
        assert_eq!(membership.doubt(3), Doubt::default());
        assert_eq!(membership.begin(4), None);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Assign(Vec<i32>),
        Revoke(Vec<i32>),
        Lose,
        Begin(i32),
        End,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let set = || prop::collection::vec(0..6_i32, 0..4);
        let event = prop_oneof![
            set().prop_map(Event::Assign),
            set().prop_map(Event::Revoke),
            Just(Event::Lose),
            (0..6_i32).prop_map(Event::Begin),
            Just(Event::End),
        ];
        prop::collection::vec(event, 0..40)
    }

    proptest! {
        #[test]
        fn the_running_message_is_owned_until_it_ends_or_is_lost(events in events()) {
            let mut membership = Membership::default();
            let mut running = false;
            for event in events {
                match event {
                    Event::Assign(set) => membership.assign(&set),
                    // librdkafka sends no second revocation before the first is answered.
                    Event::Revoke(set) if membership.retained.is_empty() => {
                        membership.revoke(&set);
                    }
                    Event::Revoke(_) => {}
                    Event::Lose => {
                        let all: Vec<_> = membership.owned().collect();
                        running &= !membership.lose(&all);
                    }
                    Event::Begin(partition) if membership.running.is_none() => {
                        running = membership.begin(partition).is_some();
                    }
                    Event::Begin(_) => {}
                    Event::End => {
                        membership.end();
                        running = false;
                    }
                }
                prop_assert_eq!(membership.owns_running(), running);
            }
        }
    }
}
