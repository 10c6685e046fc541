//! Offsets to lag: what waits in a topic for a group, partition by partition. Pure.

use std::sync::Arc;

use crate::decide::{Lag, PartitionWork, Work};
use crate::kafka::{TopicIdentity, Unread};
use separation_contract::kafka::OffsetReset;

/// Offsets of a topic's partitions, as they were read for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Which topic it is now.
    pub identity: TopicIdentity,
    /// Its partitions, ascending.
    pub partitions: Vec<PartitionOffsets>,
}

/// Offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The partition's number.
    pub partition: i32,
    /// The first offset that is still there.
    pub start: Result<i64, Unread>,
    /// The next offset, as readers of committed records see it.
    pub end: Result<i64, Unread>,
    /// The group's committed offset; none where it never committed.
    pub committed: Result<Option<i64>, Unread>,
}

/// What is known of how the group's offsets were initialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The topic that they were initialized for; none where they never were.
    pub initialized_for: Option<TopicIdentity>,
    /// Where a partition without a committed offset starts when they are initialized for the first time.
    pub policy: OffsetReset,
}

/// How a topic is related to the one that offsets were initialized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Offsets were never initialized here: not at all, in another cluster, or for a topic whose cluster is unknown.
    New,
    /// It is the same topic, as far as ids are known.
    Same,
    /// It was deleted and created again: the same cluster has it under another id.
    Recreated,
}

impl Adoption {
    /// Not done yet.
    pub fn pending(policy: OffsetReset) -> Self {
        Self {
            initialized_for: None,
            policy,
        }
    }

    /// How `topic` is related to the one that offsets were initialized for.
    pub fn relation(&self, topic: &TopicIdentity) -> Relation {
        let Some(before) = &self.initialized_for else {
            return Relation::New;
        };
        let same = |before: &Option<Arc<str>>, now: &Option<Arc<str>>| {
            before
                .as_ref()
                .zip(now.as_ref())
                .map(|(before, now)| before == now)
        };
        let same_cluster = same(&before.cluster_id, &topic.cluster_id);
        match (same_cluster, same(&before.topic_id, &topic.topic_id)) {
            (Some(false), _) | (None, Some(false)) => Relation::New,
            (Some(true), Some(false)) => Relation::Recreated,
            (_, Some(true) | None) => Relation::Same,
        }
    }
}

/// Something about a partition that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flag {
    /// The committed offset lies beyond the end: the topic was made anew, or lost messages.
    BeyondEnd {
        /// The partition.
        partition: i32,
        /// The committed offset.
        committed: i64,
        /// The end.
        end: i64,
    },
    /// Messages expired before they were read.
    Expired {
        /// The partition.
        partition: i32,
        /// How many, at most.
        messages: i64,
    },
    /// The topic was made anew since its offsets were initialised.
    Recreated,
}

/// What waits, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LagFound {
    /// What waits.
    pub lag: Lag,
    /// What is odd.
    pub flags: Vec<Flag>,
}

/// What waits in a topic for a group: `end - max(committed, start)` for each partition, and never less than nothing.
///
/// A committed offset that cannot belong to this topic (beyond its end, or of another topic id) counts from the start.
pub fn lag_of(offsets: &TopicOffsets, adoption: &Adoption) -> LagFound {
    let relation = adoption.relation(&offsets.identity);
    let mut flags = Vec::new();
    if relation == Relation::Recreated {
        flags.push(Flag::Recreated);
    }
    let mut known = Vec::with_capacity(offsets.partitions.len());
    let mut unread: Option<(u32, &Unread)> = None;
    for partition in &offsets.partitions {
        match waiting(partition, relation, adoption.policy, &mut flags) {
            Ok(messages) => known.push(PartitionWork {
                partition: partition.partition,
                messages,
            }),
            Err(why) => {
                let (missing, why) = unread.unwrap_or((0, why));
                unread = Some((missing + 1, why));
            }
        }
    }
    let lag = match unread {
        None => Lag::Known(Work::new(known)),
        Some((_, why)) if known.is_empty() => Lag::Unknown {
            why: Arc::clone(&why.0),
        },
        Some((missing, why)) => Lag::Partial {
            known: Work::new(known),
            missing,
            why: Arc::clone(&why.0),
        },
    };
    LagFound { lag, flags }
}

fn waiting<'a>(
    offsets: &'a PartitionOffsets,
    relation: Relation,
    policy: OffsetReset,
    flags: &mut Vec<Flag>,
) -> Result<u64, &'a Unread> {
    let PartitionOffsets { partition, .. } = *offsets;
    let end = *offsets.end.as_ref()?;
    let start = *offsets.start.as_ref()?;
    let committed = *offsets.committed.as_ref()?;
    let from = match committed {
        _ if relation == Relation::Recreated => start,
        Some(committed) if committed > end => {
            flags.push(Flag::BeyondEnd {
                partition,
                committed,
                end,
            });
            start
        }
        Some(committed) if committed < start => {
            flags.push(Flag::Expired {
                partition,
                messages: start.saturating_sub(committed),
            });
            start
        }
        Some(committed) => committed,
        // Before offsets are initialized: where they will be. After it: a new partition, and nothing of it is skipped.
        None if relation == Relation::New && policy == OffsetReset::Latest => end,
        None => start,
    };
    // An end below the start is one that moved between two questions.
    Ok(u64::try_from(end.saturating_sub(from)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn identity(cluster: &str, topic: &str) -> TopicIdentity {
        let known = |id: &str| (!id.is_empty()).then(|| id.into());
        TopicIdentity {
            cluster_id: known(cluster),
            topic_id: known(topic),
        }
    }

    fn adopted_as(cluster: &str, topic: &str) -> Adoption {
        Adoption {
            initialized_for: Some(identity(cluster, topic)),
            policy: OffsetReset::Latest,
        }
    }

    fn adopted() -> Adoption {
        adopted_as("one", "topic")
    }

    #[test]
    fn only_another_id_in_the_same_known_cluster_is_a_recreated_topic() {
        for (before, now, expected) in [
            (("one", "a"), ("one", "a"), Relation::Same),
            (("one", "a"), ("one", "b"), Relation::Recreated),
            (("one", "a"), ("two", "b"), Relation::New),
            (("one", "a"), ("two", "a"), Relation::New),
            // A cluster that is not known may be another one.
            (("", "a"), ("one", "b"), Relation::New),
            (("one", "a"), ("", "b"), Relation::New),
            (("", "a"), ("one", "a"), Relation::Same),
            // A topic without an id may be any.
            (("one", ""), ("one", "b"), Relation::Same),
            (("one", "a"), ("one", ""), Relation::Same),
            (("", ""), ("one", "b"), Relation::Same),
            (("one", ""), ("two", ""), Relation::New),
        ] {
            let relation = adopted_as(before.0, before.1).relation(&identity(now.0, now.1));
            assert_eq!(relation, expected, "{before:?} then {now:?}");
        }
        let pending = Adoption::pending(OffsetReset::Latest);
        assert_eq!(pending.relation(&identity("one", "a")), Relation::New);
    }

    #[track_caller]
    fn check(partition: (i64, i64, Option<i64>), adoption: &Adoption, messages: u64, flags: &[Flag]) {
        let found = lag_of(&offsets(&[partition]), adoption);
        assert_eq!(found.lag, Lag::Known(Work::of([messages])));
        assert_eq!(found.flags, flags);
    }

    #[test]
    fn work_is_what_lies_between_the_committed_offset_and_the_end() {
        check((0, 10, Some(4)), &adopted(), 6, &[]);
        check((0, 10, Some(10)), &adopted(), 0, &[]);
        check((0, 0, None), &adopted(), 0, &[]);
        check((0, i64::MAX, Some(0)), &adopted(), 9_223_372_036_854_775_807, &[]);
    }

    #[test]
    fn without_a_committed_offset_the_adoption_decides() {
        check((3, 10, None), &Adoption::pending(OffsetReset::Latest), 0, &[]);
        check((3, 10, None), &Adoption::pending(OffsetReset::Earliest), 7, &[]);
        // Another cluster: nothing was initialized there, and what was carried over counts.
        check((3, 10, None), &adopted_as("two", "topic"), 0, &[]);
        check((3, 10, Some(6)), &adopted_as("two", "other"), 4, &[]);
        // A partition that appeared after the adoption: all of it.
        check((3, 10, None), &adopted(), 7, &[]);
    }

    #[test]
    fn offsets_that_cannot_be_are_flagged_and_count_from_the_start() {
        let beyond = Flag::BeyondEnd {
            partition: 0,
            committed: 99,
            end: 12,
        };
        check((0, 12, Some(99)), &adopted(), 12, std::slice::from_ref(&beyond));
        let beyond_and_empty = Flag::BeyondEnd {
            partition: 0,
            committed: 99,
            end: 0,
        };
        check((0, 0, Some(99)), &adopted(), 0, &[beyond_and_empty]);
        let expired = Flag::Expired {
            partition: 0,
            messages: 4,
        };
        check((6, 10, Some(2)), &adopted(), 4, &[expired]);
        // Made anew, with an offset that happens to fit.
        let other = adopted_as("one", "other");
        check((0, 12, Some(5)), &other, 12, &[Flag::Recreated]);
        // An end that was read before the start moved.
        check(
            (7, 5, Some(5)),
            &adopted(),
            0,
            &[Flag::Expired {
                partition: 0,
                messages: 2,
            }],
        );
    }

    #[test]
    fn what_could_not_be_read_is_missing_and_not_zero() {
        let mut some = offsets(&[(0, 10, Some(4)), (0, 10, Some(4)), (0, 10, Some(4))]);
        let why = Unread::new("broker 2 is away");
        some.partitions[1].end = Err(why.clone());
        let found = lag_of(&some, &adopted());
        let known = [0, 2].map(|partition| PartitionWork {
            partition,
            messages: 6,
        });
        let expected = Lag::Partial {
            known: Work::new(known.to_vec()),
            missing: 1,
            why: "broker 2 is away".into(),
        };
        assert_eq!(found.lag, expected);
        for partition in &mut some.partitions {
            partition.committed = Err(why.clone());
        }
        let unknown = Lag::Unknown {
            why: "broker 2 is away".into(),
        };
        assert_eq!(lag_of(&some, &adopted()).lag, unknown);
    }
}
