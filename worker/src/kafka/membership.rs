//! Which partitions this member owns, and when it gives them up. Pure: no client, no clock.
//!
//! The one rule: a partition whose message is being worked on is given up when that work has ended, unless it was lost.
//! A revoke is one event for its whole set, so the whole set waits.

use std::collections::BTreeMap;
use std::time::Instant;

use separation_contract::offset_metadata::OffsetMetadata;

use super::message::Place;

/// What the client is to do about partitions that it is asked to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RevokeAnswer {
    /// Give them up now.
    GiveUp,
    /// Keep them until the work has ended; then give all of them up.
    Hold,
}

/// What is known about a partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nothing.
    Unknown,
    /// This offset, with the record of the message there: this member committed it at that time.
    At(i64, OffsetMetadata, Instant),
}

/// Partitions of one topic that this member owns.
#[derive(Debug, Default)]
pub(super) struct Membership {
    owned: BTreeMap<i32, Noted>,
    /// Partition of the message that is worked on.
    working: Option<i32>,
    /// Partitions to give up when the work has ended.
    held: Vec<i32>,
    /// What is doubted about committed offsets of owned partitions.
    doubts: BTreeMap<i32, Doubt>,
    /// Counts changes of the set.
    changes: u64,
}

/// What is doubted about the committed offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// Since when the brokers answer that there is none.
    pub(super) missing_since: Option<Instant>,
    /// The partition was read again from another offset.
    pub(super) moved: bool,
}

impl Membership {
    /// Partitions that are owned, those to be given up included.
    pub(super) fn owned(&self) -> impl Iterator<Item = i32> {
        self.owned.keys().copied()
    }

    /// How often the set changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether partitions are to be given up when the work has ended.
    pub(super) fn is_asked_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// More partitions came.
    pub(super) fn assign(&mut self, partitions: &[i32]) {
        self.changes += 1;
        self.owned
            .extend(partitions.iter().map(|&partition| (partition, Noted::Unknown)));
    }

    /// Partitions are asked back.
    pub(super) fn revoke(&mut self, partitions: &[i32]) -> RevokeAnswer {
        self.changes += 1;
        if self.working.is_some_and(|working| partitions.contains(&working)) {
            self.held = partitions.to_vec();
            return RevokeAnswer::Hold;
        }
        self.forget(partitions);
        RevokeAnswer::GiveUp
    }

    /// Partitions are gone. Says whether the work's own is among them.
    pub(super) fn lose(&mut self, partitions: &[i32]) -> bool {
        self.changes += 1;
        self.forget(partitions);
        self.held.clear();
        let lost = self.working.filter(|working| partitions.contains(working));
        if lost.is_some() {
            // Should the partition come back, it is another's work.
            self.working = None;
        }
        lost.is_some()
    }

    /// Work begins on a message of `partition`. Nothing if that is not owned any more.
    pub(super) fn begin(&mut self, partition: i32) -> Option<()> {
        self.noted(partition)?;
        self.working = Some(partition);
        Some(())
    }

    /// What is known about the committed offset of a partition. Nothing if it is not owned.
    pub(super) fn noted(&self, partition: i32) -> Option<&Noted> {
        self.owned.get(&partition)
    }

    /// Whether the partition of the work is still owned.
    pub(super) fn holds_work(&self) -> bool {
        self.working
            .is_some_and(|working| self.owned.contains_key(&working))
    }

    /// Something was committed at `now`.
    pub(super) fn note(&mut self, place: Place, record: OffsetMetadata, now: Instant) {
        if let Some(noted) = self.owned.get_mut(&place.partition) {
            *noted = Noted::At(place.offset, record, now);
            self.doubts.remove(&place.partition);
        }
    }

    /// What is doubted about the committed offset of a partition.
    pub(super) fn doubt(&self, partition: i32) -> Doubt {
        self.doubts.get(&partition).copied().unwrap_or_default()
    }

    /// The brokers answered at `now` that a partition has no committed offset.
    pub(super) fn missing(&mut self, partition: i32, now: Instant) {
        if self.owned.contains_key(&partition) {
            self.doubts
                .entry(partition)
                .or_default()
                .missing_since
                .get_or_insert(now);
        }
    }

    /// A partition is read again from another offset; what was committed there is not known any more.
    pub(super) fn moved(&mut self, partition: i32) {
        if let Some(noted) = self.owned.get_mut(&partition) {
            *noted = Noted::Unknown;
            let doubt = Doubt {
                missing_since: None,
                moved: true,
            };
            self.doubts.insert(partition, doubt);
        }
    }

    /// The work has ended. Gives the partitions to give up now.
    pub(super) fn end(&mut self) -> Vec<i32> {
        self.working = None;
        let held = std::mem::take(&mut self.held);
        self.forget(&held);
        held
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
    fn a_set_without_the_work_is_given_up_at_once() {
        let mut membership = Membership::default();
        membership.assign(&[0, 1, 2]);
        assert_eq!(membership.begin(0), Some(()));
        assert_eq!(membership.revoke(&[1, 2]), RevokeAnswer::GiveUp);
        assert!(membership.holds_work());
        assert_eq!(membership.end(), Vec::<i32>::new());
        assert_eq!(membership.owned().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_set_with_the_work_waits_for_it() {
        let mut membership = Membership::default();
        membership.assign(&[0, 1, 2]);
        membership.begin(1);
        assert_eq!(membership.revoke(&[1, 2]), RevokeAnswer::Hold);
        assert!(membership.holds_work());
        assert_eq!(membership.end(), [1, 2]);
        assert_eq!(membership.owned().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_is_lost_is_not_held() {
        let mut membership = Membership::default();
        membership.assign(&[0, 1]);
        membership.begin(1);
        membership.revoke(&[1]);
        assert!(membership.lose(&[0, 1]));
        assert!(!membership.holds_work());
        assert_eq!(membership.end(), Vec::<i32>::new());
        assert_eq!(membership.owned().count(), 0);
    }

    #[test]
    fn what_is_noted_is_known_until_the_partition_goes() {
        let mut membership = Membership::default();
        membership.assign(&[3]);
        assert_eq!(membership.noted(3), Some(&Noted::Unknown));
        let (now, third) = (
            Instant::now(),
            Place {
                partition: 3,
                offset: 8,
            },
        );
        membership.note(third, OffsetMetadata::attempt(1), now);
        assert_eq!(
            membership.noted(3),
            Some(&Noted::At(8, OffsetMetadata::attempt(1), now))
        );
        membership.missing(3, now);
        membership.moved(3);
        assert_eq!(membership.noted(3), Some(&Noted::Unknown));
        assert!(membership.doubt(3).moved);
        membership.note(third, OffsetMetadata::default(), now);
        membership.revoke(&[3]);
        membership.assign(&[3]);
        assert_eq!(membership.noted(3), Some(&Noted::Unknown));
        assert_eq!(membership.doubt(3), Doubt::default());
        assert_eq!(membership.begin(4), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Assign(Vec<i32>),
        Revoke(Vec<i32>),
        Lose,
        Begin(i32),
        End,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let set = || prop::collection::vec(0..6_i32, 0..4);
        let step = prop_oneof![
            set().prop_map(Step::Assign),
            set().prop_map(Step::Revoke),
            Just(Step::Lose),
            (0..6_i32).prop_map(Step::Begin),
            Just(Step::End),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn work_ends_its_claim_only_by_ending_or_by_loss(steps in steps()) {
            let mut membership = Membership::default();
            let mut working = false;
            for step in steps {
                match step {
                    Step::Assign(set) => membership.assign(&set),
                    // librdkafka asks no second time before the first is answered.
                    Step::Revoke(set) if membership.held.is_empty() => {
                        membership.revoke(&set);
                    }
                    Step::Revoke(_) => {}
                    Step::Lose => {
                        let all: Vec<_> = membership.owned().collect();
                        working &= !membership.lose(&all);
                    }
                    Step::Begin(partition) if membership.working.is_none() => {
                        working = membership.begin(partition).is_some();
                    }
                    Step::Begin(_) => {}
                    Step::End => {
                        membership.end();
                        working = false;
                    }
                }
                prop_assert_eq!(membership.holds_work(), working);
            }
        }
    }
}
