//! A group's offsets: initialized once before its first worker starts, and remembered while it has no workers.
//!
//! Workers start at the first message of a partition without a committed offset, so that no message that is published
//! after the initialization is skipped. `initialOffset: Latest` is applied here, once, by committing the current end
//! offsets.

use std::time::Duration;

use separation_kafka::{Commit, ReadError, TopicIdentity};

use crate::decide::Moment;
use crate::observe::{Adoption, TopicOffsets, TopicRelation};

/// Offsets to commit.
pub type Commits = Vec<Commit>;

/// How long a group's offsets must have been the same before any are committed: a new coordinator may briefly report
/// that a group has no offsets, and a commit then would overwrite them.
const STABLE_FOR: Duration = Duration::from_secs(5);

/// Maximum partitions whose offsets are remembered in a pool's status. An offset takes some 10 bytes, so that both
/// roles stay below 50 kB of the 1.5 MB limit of etcd. Offsets of larger topics are not remembered; only the periodic
/// commits keep them.
pub const MAX_REMEMBERED_PARTITIONS: usize = 2_000;

/// Remembered for a partition without a committed offset.
const NO_OFFSET: i64 = -1;

/// A topic and its partitions' committed offsets, each with whether it is beyond the end offset.
type Committed = (TopicIdentity, Vec<(Option<i64>, bool)>);

/// Committed offsets, and the times of the first and the last consecutive reading that agree on them.
#[derive(Debug, Default)]
pub struct StableOffsets(Option<(Committed, Moment, Moment)>);

impl StableOffsets {
    /// Records a reading. One with an unread partition starts over.
    pub fn record(&mut self, offsets: Option<&TopicOffsets>, at: Moment) {
        let committed = offsets.and_then(committed);
        self.0 = committed.map(|committed| match self.0.take() {
            Some((before, first, _)) if before == committed => (before, first, at),
            _ => (committed, at, at),
        });
    }

    /// Whether readings have agreed for long enough to commit offsets.
    pub fn are_stable(&self) -> bool {
        let agreement = self.0.as_ref();
        agreement.is_some_and(|(_, first, last)| last.since(*first) >= STABLE_FOR)
    }
}

/// The topic and the group's committed offsets in it, which readings must agree on; none if one could not be read.
fn committed(offsets: &TopicOffsets) -> Option<Committed> {
    let each = offsets
        .partitions
        .iter()
        .map(|partition| Some((partition.committed.clone().ok()?, partition.is_beyond_end())));
    Some((offsets.identity.clone(), each.collect::<Option<Vec<_>>>()?))
}

/// Offsets to commit before the first worker of a pool starts.
///
/// A group that was never adopted keeps its committed offsets; its other partitions start by the policy. In a topic
/// that was deleted and recreated in the same cluster, every partition starts at its first message: the committed
/// offsets belong to the old topic. An adopted topic that is unchanged needs no commit.
///
/// # Errors
/// If a partition could not be read: offsets are set for all partitions or for none.
pub fn to_adopt(offsets: &TopicOffsets, adoption: &Adoption) -> Result<Commits, ReadError> {
    let relation = adoption.relation(&offsets.identity);
    if relation == TopicRelation::Same {
        return Ok(Vec::new());
    }
    let mut commits = Vec::new();
    for partition in &offsets.partitions {
        let (start, end) = (partition.start.clone()?, partition.end.clone()?);
        let committed = partition.committed.clone()?;
        if committed.is_none() || relation == TopicRelation::Recreated {
            let next = adoption.first_offset(relation, (start, end));
            commits.push(Commit::new(partition.partition, next));
        }
    }
    Ok(commits)
}

/// Offsets to commit in place of those that are beyond the end of their partition, if brokers do not report the topic's
/// id.
///
/// The topic was recreated, or lost messages. Workers start at the first message then, but only as long as the offset is
/// beyond the end: once the topic has grown past it, they would skip the messages before it.
pub fn to_replace(offsets: &TopicOffsets) -> Commits {
    if offsets.identity.topic_id.is_some() {
        return Vec::new();
    }
    let beyond = offsets
        .partitions
        .iter()
        .filter(|partition| partition.is_beyond_end());
    let known = beyond.filter_map(|partition| {
        let first = *partition.start.as_ref().ok()?;
        Some(Commit::new(partition.partition, first))
    });
    known.collect()
}

/// The group's committed offsets to remember: one for each partition from 0. None if a partition could not be read, the
/// group has no offset, or the topic has more than [`MAX_REMEMBERED_PARTITIONS`] partitions.
pub fn to_remember(offsets: &TopicOffsets) -> Option<Vec<i64>> {
    let count = offsets.partitions.last()?.partition;
    let count = usize::try_from(count).ok()?.checked_add(1)?;
    if count > MAX_REMEMBERED_PARTITIONS {
        return None;
    }
    let mut remembered = vec![NO_OFFSET; count];
    for partition in &offsets.partitions {
        let index = usize::try_from(partition.partition).ok()?;
        if let Some(committed) = partition.committed.as_ref().ok()? {
            *remembered.get_mut(index)? = *committed;
        }
    }
    remembered
        .iter()
        .any(|offset| *offset != NO_OFFSET)
        .then_some(remembered)
}

/// The offsets with `remembered` ones as committed, if all of the group's offsets are gone. None if the group has an
/// offset, a partition is unread, or nothing is remembered.
///
/// A partition that was added since has no offset, nor has one that ends before the remembered offset: both start at
/// their first message.
pub fn recalled(offsets: &TopicOffsets, remembered: &[i64]) -> Option<TopicOffsets> {
    let mut recalled = offsets.clone();
    let mut is_any = false;
    for partition in &mut recalled.partitions {
        let (committed, end) = (partition.committed.as_ref(), partition.end.as_ref());
        if committed.ok()?.is_some() {
            return None;
        }
        let end = *end.ok()?;
        let index = usize::try_from(partition.partition).ok()?;
        let offset = remembered.get(index).copied();
        let offset = offset.filter(|offset| (0..=end).contains(offset));
        is_any |= offset.is_some();
        partition.committed = Ok(offset);
    }
    is_any.then_some(recalled)
}

/// Offsets to commit to restore the recalled ones.
pub fn to_restore(recalled: &TopicOffsets) -> Commits {
    let partitions = recalled.partitions.iter();
    let known = partitions.filter_map(|partition| {
        let next = partition.committed.as_ref().ok()?.as_ref()?;
        Some(Commit::new(partition.partition, *next))
    });
    known.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use separation_contract::kafka::OffsetReset;

    use super::*;
    use crate::observe::PartitionOffsets;

    fn identity(cluster: &str, topic: &str) -> TopicIdentity {
        TopicIdentity {
            cluster_id: Some(cluster.into()),
            topic_id: Some(topic.into()),
        }
    }

    fn adopted_as(identity: TopicIdentity) -> Adoption {
        Adoption {
            initialized_for: Some(identity),
            policy: OffsetReset::Latest,
        }
    }

    fn offsets(partitions: &[(i64, i64, Option<i64>)]) -> TopicOffsets {
        let partitions = partitions
            .iter()
            .zip(0..)
            .map(|((start, end, committed), partition)| PartitionOffsets {
                partition,
                start: Ok(*start),
                end: Ok(*end),
                committed: Ok(*committed),
            });
        TopicOffsets {
            identity: identity("one", "topic"),
            partitions: partitions.collect(),
        }
    }

    pub(crate) fn commits(offsets: &[(i32, i64)]) -> Commits {
        let each = offsets
            .iter()
            .map(|(partition, next)| Commit::new(*partition, *next));
        each.collect()
    }

    #[test]
    fn committed_offsets_are_kept_and_other_partitions_start_by_the_policy() {
        let found = offsets(&[(2, 9, Some(4)), (2, 9, None), (0, 0, None)]);
        let latest = to_adopt(&found, &Adoption::pending(OffsetReset::Latest));
        assert_eq!(latest, Ok(commits(&[(1, 9), (2, 0)])));
        let earliest = to_adopt(&found, &Adoption::pending(OffsetReset::Earliest));
        assert_eq!(earliest, Ok(commits(&[(1, 2), (2, 0)])));
    }

    #[test]
    fn an_adopted_topic_is_unchanged_and_a_recreated_one_starts_at_its_first_message() {
        let found = offsets(&[(0, 9, Some(4)), (0, 9, None)]);
        let same = adopted_as(identity("one", "topic"));
        assert_eq!(to_adopt(&found, &same), Ok(vec![]));
        let recreated = adopted_as(identity("one", "other"));
        assert_eq!(to_adopt(&found, &recreated), Ok(commits(&[(0, 0), (1, 0)])));
    }

    #[test]
    fn offsets_copied_to_another_cluster_are_never_overwritten() {
        let found = offsets(&[(0, 9, Some(4)), (0, 9, None)]);
        let unknown_cluster = TopicIdentity {
            cluster_id: None,
            topic_id: Some("other".into()),
        };
        for before in [
            identity("two", "other"),
            identity("two", "topic"),
            unknown_cluster,
        ] {
            let adopted = to_adopt(&found, &adopted_as(before.clone()));
            assert_eq!(adopted, Ok(commits(&[(1, 9)])), "{before:?}");
        }
    }

    #[test]
    fn offsets_are_set_for_all_partitions_or_for_none() {
        let mut found = offsets(&[(0, 9, None), (0, 9, None)]);
        let why = ReadError::new("unreachable");
        found.partitions[1].end = Err(why.clone());
        assert_eq!(
            to_adopt(&found, &Adoption::pending(OffsetReset::Latest)),
            Err(why)
        );
    }

    #[test]
    fn only_offsets_beyond_the_end_of_a_topic_without_an_id_are_replaced() {
        let mut found = offsets(&[(2, 9, Some(10)), (2, 9, Some(9)), (2, 9, Some(1)), (2, 9, None)]);
        assert_eq!(to_replace(&found), commits(&[]));
        found.identity.topic_id = None;
        assert_eq!(to_replace(&found), commits(&[(0, 2)]));
        found.partitions[0].start = Err(ReadError::new("unreachable"));
        assert_eq!(to_replace(&found), commits(&[]));
    }

    #[test]
    fn offsets_are_stable_only_while_they_stay_beyond_the_end() {
        let mut stable_offsets = StableOffsets::default();
        let mut record = |end: i64, seconds: u64| {
            let at = Moment::from_millis(1_000 * seconds);
            stable_offsets.record(Some(&offsets(&[(0, end, Some(10))])), at);
            stable_offsets.are_stable()
        };
        // The end itself may move.
        assert!(!record(9, 0));
        assert!(record(8, 5));
        // A leader without the latest messages, and the next one with all of them.
        assert!(!record(10, 6));
        assert!(!record(9, 7));
        assert!(record(9, 12));
    }

    #[test]
    fn offsets_are_remembered_only_if_all_are_known_and_within_the_limit() {
        let mut found = offsets(&[(0, 9, Some(4)), (0, 9, None), (0, 9, Some(0))]);
        assert_eq!(to_remember(&found), Some(vec![4, -1, 0]));
        found.partitions[1].committed = Err(ReadError::new("unreachable"));
        assert_eq!(to_remember(&found), None);
        assert_eq!(to_remember(&offsets(&[(0, 9, None)])), None);
        assert_eq!(to_remember(&offsets(&[])), None);
        let many = |count| offsets(&vec![(0, 1, Some(1)); count]);
        assert!(to_remember(&many(MAX_REMEMBERED_PARTITIONS)).is_some());
        assert_eq!(to_remember(&many(MAX_REMEMBERED_PARTITIONS + 1)), None);
    }

    #[test]
    fn remembered_offsets_are_used_only_if_the_group_has_no_offsets() {
        let without_offsets = offsets(&[(2, 9, None), (0, 9, None), (0, 9, None), (0, 5, None)]);
        // The second had no offset, the third was truncated since, the fourth was added since.
        let found = recalled(&without_offsets, &[7, -1, 12]).expect("all are gone");
        assert_eq!(to_restore(&found), commits(&[(0, 7)]));
        // An offset that is below the start now counts as expired, as it would have without the loss.
        let found = recalled(&without_offsets, &[1, 3]).expect("all are gone");
        assert_eq!(to_restore(&found), commits(&[(0, 1), (1, 3)]));

        assert_eq!(
            recalled(&offsets(&[(0, 9, Some(0)), (0, 9, None)]), &[4, 4]),
            None
        );
        assert_eq!(recalled(&without_offsets, &[]), None);
        let mut unread = without_offsets;
        unread.partitions[0].committed = Err(ReadError::new("unreachable"));
        assert_eq!(recalled(&unread, &[7, 7]), None);
    }
}
