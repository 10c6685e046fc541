//! A group's offsets: set once before its first worker starts, and remembered while it has none.
//!
//! Pool workers start at the first message of a partition without a committed offset, so that nothing that is published
//! after the adoption is ever skipped. What `autoOffsetReset: latest` means is decided here, once, by committing the ends of
//! that moment.

use std::time::Duration;

use separation_contract::kafka::OffsetReset;

use crate::decide::Moment;
use crate::kafka::{Commit, TopicIdentity, Unread};
use crate::observe::{Adoption, Relation, TopicOffsets};

/// Offsets to commit.
pub type Commits = Vec<Commit>;

/// How long a group's offsets must have been the same before any are committed: a coordinator that has just taken over
/// may say for a moment that a group never committed, and what was written then would hide what it did.
const STEADY_FOR: Duration = Duration::from_secs(5);

/// Partitions whose offsets are remembered in a pool's status. An offset has some 10 bytes there, so that both roles stay
/// below 50 kB of the 1.5 MB that etcd takes. Offsets of larger topics are not remembered; the commits alone keep them.
pub const MOST_REMEMBERED: usize = 2_000;

/// Stands for a partition without a committed offset among remembered ones.
const NO_OFFSET: i64 = -1;

/// A topic, and what its partitions' committed offsets are.
type Committed = (TopicIdentity, Vec<Option<i64>>);

/// What was committed, and the first and the last of the readings in a row that say so.
#[derive(Debug, Default)]
pub struct Steady(Option<(Committed, Moment, Moment)>);

impl Steady {
    /// Records a reading; one in which a partition could not be read begins again.
    pub fn note(&mut self, offsets: Option<&TopicOffsets>, at: Moment) {
        let committed = offsets.and_then(committed);
        self.0 = committed.map(|committed| match self.0.take() {
            Some((before, first, _)) if before == committed => (before, first, at),
            _ => (committed, at, at),
        });
    }

    /// Whether readings have agreed for long enough to commit offsets.
    pub fn is_long_enough(&self) -> bool {
        let steady = self.0.as_ref();
        steady.is_some_and(|(_, first, last)| last.since(*first) >= STEADY_FOR)
    }
}

/// A topic and the group's committed offsets in it, which readings must agree on; none where one could not be read.
fn committed(offsets: &TopicOffsets) -> Option<Committed> {
    let each = offsets
        .partitions
        .iter()
        .map(|partition| partition.committed.clone().ok());
    Some((offsets.identity.clone(), each.collect::<Option<Vec<_>>>()?))
}

/// What to commit before the first worker of a pool starts.
///
/// A group that was never adopted keeps what it committed; its other partitions start as the policy says. In a topic that
/// was deleted and created again in the same cluster, every partition starts at its first message: what the group committed
/// belongs to the old one. A topic that was adopted and is the same needs nothing.
///
/// # Errors
/// When a partition could not be read: offsets are set for all of them, or for none.
pub fn to_adopt(offsets: &TopicOffsets, adoption: &Adoption) -> Result<Commits, Unread> {
    let relation = adoption.relation(&offsets.identity);
    if relation == Relation::Same {
        return Ok(Vec::new());
    }
    let mut commits = Vec::new();
    for partition in &offsets.partitions {
        let (start, end) = (partition.start.clone()?, partition.end.clone()?);
        let committed = partition.committed.clone()?;
        let next = match (committed, adoption.policy) {
            _ if relation == Relation::Recreated => start,
            (Some(_), _) => continue,
            (None, OffsetReset::Latest) => end,
            (None, OffsetReset::Earliest) => start,
        };
        commits.push(Commit::of(partition.partition, next));
    }
    Ok(commits)
}

/// What to remember of a group's committed offsets: one for each partition from 0. None where there is nothing worth it: a
/// partition could not be read, the group has no offset, or the topic has more partitions than are remembered.
pub fn to_remember(offsets: &TopicOffsets) -> Option<Vec<i64>> {
    let count = offsets.partitions.last()?.partition;
    let count = usize::try_from(count).ok()?.checked_add(1)?;
    if count > MOST_REMEMBERED {
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

/// The offsets as they were when `remembered` was, where all of the group's offsets are gone. None while the group has any
/// offset, while a partition is unread, and where nothing is remembered.
///
/// A partition that was added since has no offset, and neither has one that ends before the remembered offset: both start at
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

/// What to commit so that a group has offsets like these.
pub fn to_restore(recalled: &TopicOffsets) -> Commits {
    let partitions = recalled.partitions.iter();
    let known = partitions.filter_map(|partition| {
        let next = partition.committed.as_ref().ok()?.as_ref()?;
        Some(Commit::of(partition.partition, *next))
    });
    known.collect()
}

#[cfg(test)]
pub(crate) mod tests {
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
            .map(|(partition, next)| Commit::of(*partition, *next));
        each.collect()
    }

    #[test]
    fn what_a_group_committed_is_kept_and_the_rest_starts_as_the_policy_says() {
        let found = offsets(&[(2, 9, Some(4)), (2, 9, None), (0, 0, None)]);
        let latest = to_adopt(&found, &Adoption::pending(OffsetReset::Latest));
        assert_eq!(latest, Ok(commits(&[(1, 9), (2, 0)])));
        let earliest = to_adopt(&found, &Adoption::pending(OffsetReset::Earliest));
        assert_eq!(earliest, Ok(commits(&[(1, 2), (2, 0)])));
    }

    #[test]
    fn an_adopted_topic_is_left_alone_and_a_recreated_one_starts_at_its_first_message() {
        let found = offsets(&[(0, 9, Some(4)), (0, 9, None)]);
        let same = adopted_as(identity("one", "topic"));
        assert_eq!(to_adopt(&found, &same), Ok(vec![]));
        let recreated = adopted_as(identity("one", "other"));
        assert_eq!(to_adopt(&found, &recreated), Ok(commits(&[(0, 0), (1, 0)])));
    }

    #[test]
    fn offsets_that_were_carried_over_to_another_cluster_are_never_overwritten() {
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
        let why = Unread::new("away");
        found.partitions[1].end = Err(why.clone());
        assert_eq!(
            to_adopt(&found, &Adoption::pending(OffsetReset::Latest)),
            Err(why)
        );
    }

    #[test]
    fn offsets_are_remembered_only_where_all_are_known_and_there_are_not_too_many() {
        let mut found = offsets(&[(0, 9, Some(4)), (0, 9, None), (0, 9, Some(0))]);
        assert_eq!(to_remember(&found), Some(vec![4, -1, 0]));
        found.partitions[1].committed = Err(Unread::new("away"));
        assert_eq!(to_remember(&found), None);
        assert_eq!(to_remember(&offsets(&[(0, 9, None)])), None);
        assert_eq!(to_remember(&offsets(&[])), None);
        let many = |count| offsets(&vec![(0, 1, Some(1)); count]);
        assert!(to_remember(&many(MOST_REMEMBERED)).is_some());
        assert_eq!(to_remember(&many(MOST_REMEMBERED + 1)), None);
    }

    #[test]
    fn remembered_offsets_count_only_where_all_of_the_group_are_gone() {
        let gone = offsets(&[(2, 9, None), (0, 9, None), (0, 9, None), (0, 5, None)]);
        // The second had none then, the third was truncated since, the fourth was added since.
        let found = recalled(&gone, &[7, -1, 12]).expect("all are gone");
        assert_eq!(to_restore(&found), commits(&[(0, 7)]));
        // One that is below the start now counts as expired, as it would have without the loss.
        let found = recalled(&gone, &[1, 3]).expect("all are gone");
        assert_eq!(to_restore(&found), commits(&[(0, 1), (1, 3)]));

        assert_eq!(
            recalled(&offsets(&[(0, 9, Some(0)), (0, 9, None)]), &[4, 4]),
            None
        );
        assert_eq!(recalled(&gone, &[]), None);
        let mut unread = gone;
        unread.partitions[0].committed = Err(Unread::new("away"));
        assert_eq!(recalled(&unread, &[7, 7]), None);
    }
}
