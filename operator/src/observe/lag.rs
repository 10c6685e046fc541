//! Computes a group's lag on a topic, partition by partition, from offsets. Pure.

use std::sync::Arc;

use separation_contract::kafka::OffsetReset;
use separation_kafka::{ReadError, TopicIdentity};

use crate::decide::{Lag, LagByPartition, PartitionLag};

/// Offsets of a topic's partitions, read for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOffsets {
    /// The topic's current ids.
    pub identity: TopicIdentity,
    /// Partitions, ascending by number.
    pub partitions: Vec<PartitionOffsets>,
}

/// Offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The partition's number.
    pub partition: i32,
    /// The first retained offset.
    pub start: Result<i64, ReadError>,
    /// The end offset as `read_committed` consumers see it; the committed offset if that is within an open transaction.
    pub end: Result<i64, ReadError>,
    /// The group's committed offset; `None` where it never committed.
    pub committed: Result<Option<i64>, ReadError>,
}

impl PartitionOffsets {
    /// Whether the committed offset is beyond the end offset, so that no message follows it.
    pub(crate) fn is_beyond_end(&self) -> bool {
        matches!((&self.committed, &self.end), (Ok(Some(committed)), Ok(end)) if committed > end)
    }
}

/// How the group's offsets were initialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The topic that they were initialized for; `None` if they never were.
    pub initialized_for: Option<TopicIdentity>,
    /// Where a partition without a committed offset starts at the first initialization.
    pub policy: OffsetReset,
}

/// How a topic is related to the one that offsets were initialized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicRelation {
    /// Offsets were never initialized for it: never at all, in another cluster, or for a topic whose cluster is
    /// unknown.
    New,
    /// The same topic, as far as ids are known.
    Same,
    /// The topic was deleted and recreated: the same cluster has it under another id.
    Recreated,
}

impl Adoption {
    /// Offsets that were never initialized.
    pub fn pending(policy: OffsetReset) -> Self {
        Self {
            initialized_for: None,
            policy,
        }
    }

    /// How `topic` is related to the one that offsets were initialized for.
    pub fn relation(&self, topic: &TopicIdentity) -> TopicRelation {
        let Some(before) = &self.initialized_for else {
            return TopicRelation::New;
        };
        let same = |before: &Option<Arc<str>>, now: &Option<Arc<str>>| {
            before
                .as_ref()
                .zip(now.as_ref())
                .map(|(before, now)| before == now)
        };
        let same_cluster = same(&before.cluster_id, &topic.cluster_id);
        match (same_cluster, same(&before.topic_id, &topic.topic_id)) {
            (Some(false), _) | (None, Some(false)) => TopicRelation::New,
            (Some(true), Some(false)) => TopicRelation::Recreated,
            (_, Some(true) | None) => TopicRelation::Same,
        }
    }

    /// Where a partition without a committed offset starts, given the start and the end offset of a topic with this
    /// relation: by the policy if offsets were never initialized. No message of a recreated topic or of a partition
    /// that was added later is skipped.
    pub(crate) fn first_offset(&self, relation: TopicRelation, (start, end): (i64, i64)) -> i64 {
        match (relation, self.policy) {
            (TopicRelation::New, OffsetReset::Latest) => end,
            _ => start,
        }
    }
}

/// An anomaly of offsets, reported to users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OffsetAnomaly {
    /// The committed offset is beyond the end offset: the topic was recreated, or lost messages.
    BeyondEnd {
        /// The partition.
        partition: i32,
        /// The committed offset.
        committed: i64,
        /// The end offset.
        end: i64,
    },
    /// Messages expired before they were read.
    Expired {
        /// The partition.
        partition: i32,
        /// The most messages that expired.
        messages: i64,
    },
    /// The topic was recreated since its offsets were initialized.
    Recreated,
}

/// A group's lag, and the anomalies of its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LagWithAnomalies {
    /// The lag.
    pub lag: Lag,
    /// The anomalies.
    pub anomalies: Vec<OffsetAnomaly>,
}

/// A group's lag on a topic: `max(0, end - max(committed, start))` for each partition.
///
/// Where the committed offset cannot belong to this topic (beyond its end, or of another topic id), lag is counted from
/// the start offset.
pub fn compute_lag(offsets: &TopicOffsets, adoption: &Adoption) -> LagWithAnomalies {
    let relation = adoption.relation(&offsets.identity);
    let mut anomalies = Vec::new();
    if relation == TopicRelation::Recreated {
        anomalies.push(OffsetAnomaly::Recreated);
    }
    let mut known = Vec::with_capacity(offsets.partitions.len());
    let mut unread: Option<(u32, &ReadError)> = None;
    for partition in &offsets.partitions {
        match partition_lag(partition, relation, adoption, &mut anomalies) {
            Ok(messages) => known.push(PartitionLag {
                partition: partition.partition,
                messages,
            }),
            Err(error) => {
                let (missing, first) = unread.unwrap_or((0, error));
                unread = Some((missing + 1, first));
            }
        }
    }
    let lag = match unread {
        None => Lag::Known(LagByPartition::new(known)),
        Some((_, error)) if known.is_empty() => Lag::Unknown {
            why: Arc::clone(&error.why),
        },
        Some((missing, error)) => Lag::Partial {
            known: LagByPartition::new(known),
            missing,
            why: Arc::clone(&error.why),
        },
    };
    LagWithAnomalies { lag, anomalies }
}

fn partition_lag<'a>(
    offsets: &'a PartitionOffsets,
    relation: TopicRelation,
    adoption: &Adoption,
    anomalies: &mut Vec<OffsetAnomaly>,
) -> Result<u64, &'a ReadError> {
    let PartitionOffsets { partition, .. } = *offsets;
    let end = *offsets.end.as_ref()?;
    let start = *offsets.start.as_ref()?;
    // The committed offset of a recreated topic belongs to the old one.
    let committed = offsets
        .committed
        .as_ref()?
        .filter(|_| relation != TopicRelation::Recreated);
    let from = match committed {
        Some(committed) if committed > end => {
            anomalies.push(OffsetAnomaly::BeyondEnd {
                partition,
                committed,
                end,
            });
            start
        }
        Some(committed) if committed < start => {
            anomalies.push(OffsetAnomaly::Expired {
                partition,
                messages: start.saturating_sub(committed),
            });
            start
        }
        Some(committed) => committed,
        // Before initialization: where the offset will be.
        None => adoption.first_offset(relation, (start, end)),
    };
    // An end below the start: the start moved after the end was read.
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
            (("one", "a"), ("one", "a"), TopicRelation::Same),
            (("one", "a"), ("one", "b"), TopicRelation::Recreated),
            (("one", "a"), ("two", "b"), TopicRelation::New),
            (("one", "a"), ("two", "a"), TopicRelation::New),
            // An unknown cluster may be another one.
            (("", "a"), ("one", "b"), TopicRelation::New),
            (("one", "a"), ("", "b"), TopicRelation::New),
            (("", "a"), ("one", "a"), TopicRelation::Same),
            // A topic without an id may be any topic.
            (("one", ""), ("one", "b"), TopicRelation::Same),
            (("one", "a"), ("one", ""), TopicRelation::Same),
            (("", ""), ("one", "b"), TopicRelation::Same),
            (("one", ""), ("two", ""), TopicRelation::New),
        ] {
            let relation = adopted_as(before.0, before.1).relation(&identity(now.0, now.1));
            assert_eq!(relation, expected, "{before:?} then {now:?}");
        }
        let pending = Adoption::pending(OffsetReset::Latest);
        assert_eq!(pending.relation(&identity("one", "a")), TopicRelation::New);
    }

    #[track_caller]
    fn check(
        partition: (i64, i64, Option<i64>),
        adoption: &Adoption,
        messages: u64,
        anomalies: &[OffsetAnomaly],
    ) {
        let found = compute_lag(&offsets(&[partition]), adoption);
        assert_eq!(found.lag, Lag::Known(LagByPartition::from_messages([messages])));
        assert_eq!(found.anomalies, anomalies);
    }

    #[test]
    fn lag_is_counted_from_the_committed_offset_to_the_end() {
        check((0, 10, Some(4)), &adopted(), 6, &[]);
        check((0, 10, Some(10)), &adopted(), 0, &[]);
        check((0, 0, None), &adopted(), 0, &[]);
        check((0, i64::MAX, Some(0)), &adopted(), 9_223_372_036_854_775_807, &[]);
    }

    #[test]
    fn without_a_committed_offset_lag_is_counted_by_the_adoption() {
        check((3, 10, None), &Adoption::pending(OffsetReset::Latest), 0, &[]);
        check((3, 10, None), &Adoption::pending(OffsetReset::Earliest), 7, &[]);
        // Another cluster: offsets were not initialized there, and migrated offsets count.
        check((3, 10, None), &adopted_as("two", "topic"), 0, &[]);
        check((3, 10, Some(6)), &adopted_as("two", "other"), 4, &[]);
        // A partition that appeared after the adoption: all of it.
        check((3, 10, None), &adopted(), 7, &[]);
    }

    #[test]
    fn impossible_offsets_are_reported_as_anomalies_and_lag_is_counted_from_the_start() {
        let beyond = OffsetAnomaly::BeyondEnd {
            partition: 0,
            committed: 99,
            end: 12,
        };
        check((0, 12, Some(99)), &adopted(), 12, std::slice::from_ref(&beyond));
        let beyond_and_empty = OffsetAnomaly::BeyondEnd {
            partition: 0,
            committed: 99,
            end: 0,
        };
        check((0, 0, Some(99)), &adopted(), 0, &[beyond_and_empty]);
        let expired = OffsetAnomaly::Expired {
            partition: 0,
            messages: 4,
        };
        check((6, 10, Some(2)), &adopted(), 4, &[expired]);
        // A recreated topic, with a committed offset that is within its range.
        let other = adopted_as("one", "other");
        check((0, 12, Some(5)), &other, 12, &[OffsetAnomaly::Recreated]);
        // The end was read before the start moved.
        check(
            (7, 5, Some(5)),
            &adopted(),
            0,
            &[OffsetAnomaly::Expired {
                partition: 0,
                messages: 2,
            }],
        );
    }

    #[test]
    fn partitions_that_could_not_be_read_are_missing_and_not_zero() {
        let mut some = offsets(&[(0, 10, Some(4)), (0, 10, Some(4)), (0, 10, Some(4))]);
        let why = ReadError::new("broker 2 is unreachable");
        some.partitions[1].end = Err(why.clone());
        let found = compute_lag(&some, &adopted());
        let known = [0, 2].map(|partition| PartitionLag {
            partition,
            messages: 6,
        });
        let expected = Lag::Partial {
            known: LagByPartition::new(known.to_vec()),
            missing: 1,
            why: "broker 2 is unreachable".into(),
        };
        assert_eq!(found.lag, expected);
        for partition in &mut some.partitions {
            partition.committed = Err(why.clone());
        }
        let unknown = Lag::Unknown {
            why: "broker 2 is unreachable".into(),
        };
        assert_eq!(compute_lag(&some, &adopted()).lag, unknown);
    }
}
