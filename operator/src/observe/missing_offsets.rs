//! Committed offsets that a coordinator reports as missing.
//!
//! A broker that has just become a group's coordinator may briefly answer, without an error, that the group never
//! committed: it shows only what it knows to be replicated. If that were believed, all messages of a topic would count
//! as lag. So offsets that existed are unknown when they are first reported missing, and missing only after a grace
//! period.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use separation_kafka::{ReadError, TopicPartition};

use crate::decide::Moment;

/// Grace period before missing offsets are believed: five readings. A coordinator knows what is replicated within a
/// second; for offsets that expired or were deleted, a delay does no harm.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

/// Whether a group is known to have offsets before the first reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PriorOffsets {
    /// The group may never have committed.
    Unknown,
    /// Offsets were initialized, perhaps by another process: even a first response without offsets is doubted.
    Initialized,
}

/// Partitions with a committed offset of one group, each with the time since when the offset is reported missing.
#[derive(Debug, Default)]
pub(super) struct OffsetHistory {
    partitions: HashMap<TopicPartition, Option<Moment>>,
    is_read: bool,
}

impl OffsetHistory {
    /// Records a reading, and replaces missing offsets by an error during the grace period.
    pub(super) fn apply_grace_period(
        &mut self,
        offsets: &mut BTreeMap<TopicPartition, Result<Option<i64>, ReadError>>,
        before: PriorOffsets,
        now: Moment,
    ) {
        if before == PriorOffsets::Initialized && !self.is_read {
            self.partitions = offsets
                .keys()
                .map(|partition| (partition.clone(), None))
                .collect();
        }
        self.is_read = true;
        for (partition, offset) in offsets {
            match offset {
                Ok(Some(_)) => {
                    self.partitions.insert(partition.clone(), None);
                }
                Ok(None) => {
                    let Some(missing_since) = self.partitions.get_mut(partition) else {
                        continue;
                    };
                    if now.since(*missing_since.get_or_insert(now)) < GRACE_PERIOD {
                        *offset = Err(ReadError::new(
                            "the coordinator has lost the committed offset, or has not loaded it yet",
                        ));
                    } else {
                        self.partitions.remove(partition);
                    }
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_offset_is_believed_only_after_the_grace_period() {
        let partition = TopicPartition {
            topic: "tasks".into(),
            partition: 0,
        };
        let mut history = OffsetHistory::default();
        let mut read = |offset: Result<Option<i64>, ReadError>, seconds: u64| {
            let mut offsets = BTreeMap::from([(partition.clone(), offset)]);
            history.apply_grace_period(
                &mut offsets,
                PriorOffsets::Unknown,
                Moment::from_millis(seconds * 1_000),
            );
            offsets.remove(&partition).unwrap()
        };
        // A group that never committed is believed.
        assert_eq!(read(Ok(None), 0), Ok(None));
        assert_eq!(read(Ok(Some(7)), 2), Ok(Some(7)));
        assert!(read(Err(ReadError::new("unreachable")), 4).is_err());
        assert!(read(Ok(None), 6).is_err());
        assert_eq!(read(Ok(Some(7)), 8), Ok(Some(7)));
        // The grace period starts again.
        assert!(read(Ok(None), 10).is_err());
        assert!(read(Ok(None), 19).is_err());
        assert_eq!(read(Ok(None), 20), Ok(None));
        assert_eq!(read(Ok(None), 22), Ok(None));
    }

    #[test]
    fn the_first_response_of_a_new_process_is_subject_to_the_grace_period_where_offsets_were_initialized() {
        let partition = |number| TopicPartition {
            topic: "tasks".into(),
            partition: number,
        };
        let mut history = OffsetHistory::default();
        let mut read = |offsets: [Result<Option<i64>, ReadError>; 2], seconds: u64| {
            let mut offsets = (0..).map(partition).zip(offsets).collect();
            history.apply_grace_period(
                &mut offsets,
                PriorOffsets::Initialized,
                Moment::from_millis(seconds * 1_000),
            );
            [0, 1].map(|number| offsets.remove(&partition(number)).unwrap())
        };
        let [kept, doubted] = read([Ok(Some(7)), Ok(None)], 0);
        assert_eq!(kept, Ok(Some(7)));
        assert!(doubted.is_err());
        let [unreachable, doubted] = read([Err(ReadError::new("unreachable")), Ok(None)], 9);
        assert!(unreachable.is_err() && doubted.is_err());
        // A new partition has no offset, and that is believed after the same grace period.
        assert_eq!(read([Ok(Some(7)), Ok(None)], 10), [Ok(Some(7)), Ok(None)]);
    }
}
