//! Fetched messages that are not delivered yet, and which of them is next. Pure: no client, no clock.
//!
//! The next one is the oldest among the first of each partition. A message is here until it is delivered, or until its
//! partition is revoked, lost or read from another offset: librdkafka continues after it, also when a rebalance makes
//! librdkafka discard its own queues.

use std::collections::BTreeMap;

use super::message::{Message, Position};

/// At most one message of each owned partition, and those that were fetched before the partition had its own queue.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// By partition and offset, each with the time by which it is ordered, in milliseconds since 1970.
    by_partition: BTreeMap<i32, BTreeMap<i64, (i64, Message)>>,
    /// The partition that precedes the others with equally old messages; it rotates, so that no partition starves.
    first: i32,
}

impl Fetched {
    /// Inserts a message that was fetched at this time, in milliseconds since 1970. That is the latest time by which it
    /// is ordered, and the time of one without a valid timestamp: producers set timestamps, also wrong ones.
    pub(super) fn insert(&mut self, message: Message, fetched_ms: i64) {
        let Position { partition, offset } = message.position;
        let timestamp_ms = message.timestamp_ms.filter(|at| *at > 0);
        let since = timestamp_ms.map_or(fetched_ms, |at| at.min(fetched_ms));
        self.by_partition
            .entry(partition)
            .or_default()
            .insert(offset, (since, message));
    }

    /// Whether a message of this partition is here.
    pub(super) fn has(&self, partition: i32) -> bool {
        self.by_partition.contains_key(&partition)
    }

    /// Whether this is the position of the first message of its partition.
    pub(super) fn is_first(&self, position: Position) -> bool {
        let messages = self.by_partition.get(&position.partition);
        messages.and_then(|messages| messages.keys().next()) == Some(&position.offset)
    }

    /// The position of the next message.
    pub(super) fn next_position(&self) -> Option<Position> {
        let (before, from) = (
            self.by_partition.range(..self.first),
            self.by_partition.range(self.first..),
        );
        let firsts = from
            .chain(before)
            .filter_map(|(_, messages)| messages.values().next());
        let (_, oldest) = firsts.min_by_key(|(since, _)| *since)?;
        Some(oldest.position)
    }

    /// Removes and returns the next message.
    pub(super) fn take_next(&mut self) -> Option<Message> {
        let Position { partition, offset } = self.next_position()?;
        self.first = partition + 1;
        let messages = self.by_partition.get_mut(&partition)?;
        let message = messages.remove(&offset);
        if messages.is_empty() {
            self.by_partition.remove(&partition);
        }
        message.map(|(_, message)| message)
    }

    /// Drops the messages of a partition.
    pub(super) fn remove(&mut self, partition: i32) {
        self.by_partition.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// When the messages are fetched.
    const NOW: i64 = 100;

    /// The partition, offset and timestamp of each message.
    fn fetched(messages: &[(i32, i64, Option<i64>)]) -> Fetched {
        let mut fetched = Fetched::default();
        for &(partition, offset, timestamp_ms) in messages {
            let position = Position { partition, offset };
            fetched.insert(Message::without_contents(position, timestamp_ms), NOW);
        }
        fetched
    }

    /// Partitions and offsets in the order of delivery.
    fn taken(fetched: &mut Fetched) -> Vec<(i32, i64)> {
        let messages = std::iter::from_fn(|| {
            let next = fetched.next_position();
            let message = fetched.take_next();
            assert_eq!(message.as_ref().map(|message| message.position), next);
            message
        });
        let positions = messages.map(|message| (message.position.partition, message.position.offset));
        positions.collect()
    }

    #[test]
    fn the_oldest_message_of_all_partitions_is_next() {
        let messages = [
            (0, 7, Some(20)),
            (1, 3, Some(40)),
            (2, 9, Some(10)),
            (3, 1, Some(30)),
            (4, 1, None),
        ];
        assert_eq!(
            taken(&mut fetched(&messages)),
            [(2, 9), (0, 7), (3, 1), (1, 3), (4, 1)]
        );
    }

    #[test]
    fn a_message_without_a_valid_timestamp_precedes_those_published_after_it_was_fetched() {
        let year_2100 = 4_102_444_800_000;
        for timestamp_ms in [None, Some(-1), Some(0), Some(year_2100)] {
            let mut fetched = fetched(&[(1, 0, timestamp_ms), (2, 0, Some(NOW - 1))]);
            let later = Position {
                partition: 0,
                offset: 0,
            };
            fetched.insert(Message::without_contents(later, Some(NOW + 1)), NOW + 2);
            assert_eq!(taken(&mut fetched), [(2, 0), (1, 0), (0, 0)], "{timestamp_ms:?}");
        }
    }

    #[test]
    fn messages_of_a_partition_stay_in_the_order_of_their_offsets() {
        let mut fetched = fetched(&[(0, 6, Some(10)), (0, 5, Some(30)), (1, 0, Some(20))]);
        let position = |offset| Position { partition: 0, offset };
        assert!(fetched.is_first(position(5)) && !fetched.is_first(position(6)));
        assert_eq!(taken(&mut fetched), [(1, 0), (0, 5), (0, 6)]);
        assert!(!fetched.has(0) && !fetched.is_first(position(5)));
    }

    #[test]
    fn partitions_with_equally_old_messages_take_turns() {
        for timestamp in [None, Some(1)] {
            let messages = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)];
            let messages = messages.map(|(partition, offset)| (partition, offset, timestamp));
            assert_eq!(
                taken(&mut fetched(&messages)),
                [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]
            );
        }
    }

    #[test]
    fn messages_of_a_removed_partition_are_dropped() {
        let mut fetched = fetched(&[(0, 0, Some(10)), (0, 1, Some(11)), (1, 0, Some(20))]);
        fetched.remove(0);
        assert!(!fetched.has(0));
        assert_eq!(taken(&mut fetched), [(1, 0)]);
    }

    proptest! {
        #[test]
        fn each_message_is_delivered_once_and_partitions_keep_their_order(
            messages in prop::collection::btree_map((0..4_i32, 0..6_i64), prop::option::of(0..9_i64), 0..20)
        ) {
            let inserted = messages.iter().map(|(&(partition, offset), &at)| (partition, offset, at));
            let inserted: Vec<_> = inserted.collect();
            let mut delivered = taken(&mut fetched(&inserted));
            // A stable sort, so the offsets of each partition must have been in their order.
            delivered.sort_by_key(|(partition, _)| *partition);
            prop_assert_eq!(delivered, messages.into_keys().collect::<Vec<_>>());
        }
    }
}
