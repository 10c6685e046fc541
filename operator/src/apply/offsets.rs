//! A group's offsets: set once before its first worker starts, and kept alive while it has none.
//!
//! Pool workers start at the first message of a partition without a committed offset, so that nothing that is published
//! after the adoption is ever skipped. What `autoOffsetReset: latest` means is decided here, once, by committing the ends of
//! that moment.

use separation_contract::kafka::OffsetReset;

use crate::kafka::Unread;
use crate::observe::{Adoption, TopicOffsets};

/// Offsets to commit: partition and next offset to read.
pub type Commits = Vec<(i32, i64)>;

/// What to commit before the first worker of a pool starts.
///
/// A group that was never adopted keeps what it committed; its other partitions start as the policy says. For a topic that
/// was made anew, every partition starts at its first message: what the group committed belongs to the old one. A topic
/// that was adopted and is the same needs nothing.
///
/// # Errors
/// When a partition could not be read: offsets are set for all of them, or for none.
pub fn to_adopt(offsets: &TopicOffsets, adoption: &Adoption, policy: OffsetReset) -> Result<Commits, Unread> {
    let recreated = match adoption {
        Adoption::Done { topic_id } if *topic_id == offsets.topic_id => return Ok(Vec::new()),
        Adoption::Done { .. } => true,
        Adoption::FromLatest | Adoption::FromEarliest => false,
    };
    let mut commits = Vec::new();
    for partition in &offsets.partitions {
        let (start, end) = (partition.start.clone()?, partition.end.clone()?);
        let committed = partition.committed.clone()?;
        let next = match (committed, policy) {
            _ if recreated => start,
            (Some(_), _) => continue,
            (None, OffsetReset::Latest) => end,
            (None, OffsetReset::Earliest) => start,
        };
        commits.push((partition.partition, next));
    }
    Ok(commits)
}

/// What to commit again so that the broker does not forget it: what is committed.
///
/// # Errors
/// When a partition could not be read.
pub fn to_keep(offsets: &TopicOffsets) -> Result<Commits, Unread> {
    let mut commits = Vec::new();
    for partition in &offsets.partitions {
        commits.extend(
            partition
                .committed
                .clone()?
                .map(|committed| (partition.partition, committed)),
        );
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::PartitionOffsets;

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
            topic_id: "one".into(),
            partitions: partitions.collect(),
        }
    }

    #[test]
    fn what_a_group_committed_is_kept_and_the_rest_starts_as_the_policy_says() {
        let found = offsets(&[(2, 9, Some(4)), (2, 9, None), (0, 0, None)]);
        let latest = to_adopt(&found, &Adoption::FromLatest, OffsetReset::Latest);
        assert_eq!(latest, Ok(vec![(1, 9), (2, 0)]));
        let earliest = to_adopt(&found, &Adoption::FromEarliest, OffsetReset::Earliest);
        assert_eq!(earliest, Ok(vec![(1, 2), (2, 0)]));
        assert_eq!(to_keep(&found), Ok(vec![(0, 4)]));
    }

    #[test]
    fn an_adopted_topic_is_left_alone_and_one_made_anew_starts_at_its_first_message() {
        let found = offsets(&[(0, 9, Some(4)), (0, 9, None)]);
        let same = Adoption::Done {
            topic_id: "one".into(),
        };
        assert_eq!(to_adopt(&found, &same, OffsetReset::Latest), Ok(vec![]));
        let other = Adoption::Done {
            topic_id: "two".into(),
        };
        assert_eq!(
            to_adopt(&found, &other, OffsetReset::Latest),
            Ok(vec![(0, 0), (1, 0)])
        );
    }

    #[test]
    fn offsets_are_set_for_all_partitions_or_for_none() {
        let mut found = offsets(&[(0, 9, None), (0, 9, None)]);
        let why = Unread::new("away");
        found.partitions[1].end = Err(why.clone());
        assert_eq!(
            to_adopt(&found, &Adoption::FromLatest, OffsetReset::Latest),
            Err(why)
        );
    }
}
