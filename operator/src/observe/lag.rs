//! Offsets to lag: what waits in a topic for a group, partition by partition. Pure.

use std::sync::Arc;

use crate::decide::{Lag, PartitionWork, Work};
use crate::kafka::Unread;

/// Offsets of a topic's partitions, as they were read for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOffsets {
    /// The topic's id now.
    pub topic_id: Arc<str>,
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

/// What is known of how the group's offsets were initialised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// They were: for this topic, and for this many partitions.
    Done {
        /// The topic's id then.
        topic_id: Arc<str>,
    },
    /// Not yet: a partition without a committed offset will start at its end.
    FromLatest,
    /// Not yet: a partition without a committed offset will start at its first message.
    FromEarliest,
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
    let recreated = matches!(adoption, Adoption::Done { topic_id } if *topic_id != offsets.topic_id);
    let mut flags = Vec::new();
    if recreated {
        flags.push(Flag::Recreated);
    }
    let mut known = Vec::with_capacity(offsets.partitions.len());
    let mut unread: Option<(u32, &Unread)> = None;
    for partition in &offsets.partitions {
        match waiting(partition, adoption, recreated, &mut flags) {
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
    adoption: &Adoption,
    recreated: bool,
    flags: &mut Vec<Flag>,
) -> Result<u64, &'a Unread> {
    let PartitionOffsets { partition, .. } = *offsets;
    let end = *offsets.end.as_ref()?;
    let start = *offsets.start.as_ref()?;
    let committed = *offsets.committed.as_ref()?;
    let from = match committed {
        _ if recreated => start,
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
        // Before adoption: where the first worker will start. After it: a new partition, and nothing of it is skipped.
        None if *adoption == Adoption::FromLatest => end,
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
            topic_id: "one".into(),
            partitions: partitions.collect(),
        }
    }

    fn adopted() -> Adoption {
        Adoption::Done {
            topic_id: "one".into(),
        }
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
        check((3, 10, None), &Adoption::FromLatest, 0, &[]);
        check((3, 10, None), &Adoption::FromEarliest, 7, &[]);
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
        let other = Adoption::Done {
            topic_id: "two".into(),
        };
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
