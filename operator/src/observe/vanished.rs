//! Committed offsets that are said to be gone.
//!
//! A broker that has just become a group's coordinator may answer for a moment, without an error, that the group never
//! committed: it shows only what it knows to be replicated. Taken at its word, all messages of a topic would wait. So
//! offsets that were there are unknown at first when they are gone, and gone when that has been said for a while.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::decide::Moment;
use crate::kafka::{TopicPartition, Unread};

/// For how long nobody is believed that offsets are gone: five readings. A coordinator learns what is replicated within
/// a second; offsets that expired or were deleted have time.
const DOUBTED: Duration = Duration::from_secs(10);

/// What is known of a group's offsets before the first reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// The group may never have committed.
    Unknown,
    /// Offsets were initialized, perhaps by another process: the first answer that there are none is doubted too.
    Initialized,
}

/// Partitions in which one group has committed, each with the time since when it is said that it has not.
#[derive(Debug, Default)]
pub(super) struct Seen {
    partitions: HashMap<TopicPartition, Option<Moment>>,
    is_read: bool,
}

impl Seen {
    /// Takes note of what was read, and makes unknown what cannot be believed yet.
    pub(super) fn doubt(
        &mut self,
        offsets: &mut BTreeMap<TopicPartition, Result<Option<i64>, Unread>>,
        before: Before,
        now: Moment,
    ) {
        if before == Before::Initialized && !self.is_read {
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
                    let Some(gone) = self.partitions.get_mut(partition) else {
                        continue;
                    };
                    if now.since(*gone.get_or_insert(now)) < DOUBTED {
                        *offset = Err(Unread::new(
                            "the coordinator has lost the committed offset, or does not know it yet",
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
    fn an_offset_that_was_there_is_gone_only_when_that_was_said_for_a_while() {
        let partition = TopicPartition {
            topic: "tasks".into(),
            partition: 0,
        };
        let mut seen = Seen::default();
        let mut read = |offset: Result<Option<i64>, Unread>, seconds: u64| {
            let mut offsets = BTreeMap::from([(partition.clone(), offset)]);
            seen.doubt(
                &mut offsets,
                Before::Unknown,
                Moment::from_millis(seconds * 1_000),
            );
            offsets.remove(&partition).unwrap()
        };
        // A group that never committed is believed.
        assert_eq!(read(Ok(None), 0), Ok(None));
        assert_eq!(read(Ok(Some(7)), 2), Ok(Some(7)));
        assert!(read(Err(Unread::new("away")), 4).is_err());
        assert!(read(Ok(None), 6).is_err());
        assert_eq!(read(Ok(Some(7)), 8), Ok(Some(7)));
        // The time starts anew.
        assert!(read(Ok(None), 10).is_err());
        assert!(read(Ok(None), 19).is_err());
        assert_eq!(read(Ok(None), 20), Ok(None));
        assert_eq!(read(Ok(None), 22), Ok(None));
    }

    #[test]
    fn the_first_answer_of_a_new_process_is_doubted_where_offsets_were_initialized() {
        let partition = |number| TopicPartition {
            topic: "tasks".into(),
            partition: number,
        };
        let mut seen = Seen::default();
        let mut read = |offsets: [Result<Option<i64>, Unread>; 2], seconds: u64| {
            let mut offsets = (0..).map(partition).zip(offsets).collect();
            seen.doubt(
                &mut offsets,
                Before::Initialized,
                Moment::from_millis(seconds * 1_000),
            );
            [0, 1].map(|number| offsets.remove(&partition(number)).unwrap())
        };
        let [kept, doubted] = read([Ok(Some(7)), Ok(None)], 0);
        assert_eq!(kept, Ok(Some(7)));
        assert!(doubted.is_err());
        let [away, doubted] = read([Err(Unread::new("away")), Ok(None)], 9);
        assert!(away.is_err() && doubted.is_err());
        // A partition that was added has no offset, and that is known after the same time.
        assert_eq!(read([Ok(Some(7)), Ok(None)], 10), [Ok(Some(7)), Ok(None)]);
    }
}
