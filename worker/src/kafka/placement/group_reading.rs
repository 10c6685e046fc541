//! A consumer group as placement sees it: the messages of each partition, and the partitions of each member. Pure: no
//! client, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use separation_contract::offset_metadata::OffsetMetadata;

/// Expected duration of a message if no worker has reported one.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);

/// Limits of the expected duration, whatever workers report: a queued message always delays the next one, and sums of
/// durations never overflow.
const MIN_DURATION: Duration = Duration::from_millis(100);
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Least progress in percent from which the remaining time is computed: below it, rounding dominates.
const MIN_PERCENT: u8 = 5;

/// A consumer group in one topic, as read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GroupReading {
    /// The partitions that could be read.
    pub(super) partitions: BTreeMap<i32, PartitionReading>,
    /// The partitions of each member; none during a rebalance in which the coordinator does not report them.
    pub(super) members: Option<Vec<Vec<i32>>>,
    /// Expected duration of a message.
    pub(super) duration: Duration,
}

/// Messages of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PartitionReading {
    /// The offset after the last message.
    pub(super) end: i64,
    /// Number of messages that are not committed, without the running one.
    pub(super) queued: u32,
    /// Expected remaining time of the running message; none if none is running.
    pub(super) rest: Option<Duration>,
}

/// Offsets of one partition, and the metadata of the committed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionOffsets {
    pub(super) partition: i32,
    /// The offset of the next message to process.
    pub(super) next: i64,
    /// The offset after the last message.
    pub(super) end: i64,
    pub(super) record: OffsetMetadata,
}

impl GroupReading {
    /// From offsets that were read at `now_s`, in Unix seconds.
    pub(super) fn new(offsets: &[PartitionOffsets], members: Option<Vec<Vec<i32>>>, now_s: u64) -> Self {
        let duration = median_duration(offsets.iter().filter_map(|read| read.record.last));
        let partitions = offsets
            .iter()
            .map(|read| (read.partition, read.reading(duration, now_s)));
        Self {
            partitions: partitions.collect(),
            members,
            duration,
        }
    }
}

impl PartitionOffsets {
    fn reading(&self, duration: Duration, now_s: u64) -> PartitionReading {
        let messages = self.end.saturating_sub(self.next).max(0);
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let start = self.record.start.filter(|_| messages > 0);
        let rest = start.map(|start| {
            let elapsed = Duration::from_secs(now_s.saturating_sub(start));
            expected_rest(elapsed, self.record.percent, duration)
        });
        PartitionReading {
            end: self.end,
            queued: messages - u32::from(rest.is_some()),
            rest,
        }
    }
}

/// The median of the durations that workers reported.
fn median_duration(reported: impl Iterator<Item = Duration>) -> Duration {
    let mut reported: Vec<Duration> = reported.collect();
    reported.sort_unstable();
    let median = reported.get(reported.len() / 2).copied();
    median
        .unwrap_or(DEFAULT_DURATION)
        .clamp(MIN_DURATION, MAX_DURATION)
}

/// Expected remaining time of a message by its progress; without any, it takes as long as others. One that already
/// takes longer is expected to take as long again.
fn expected_rest(elapsed: Duration, percent: Option<u8>, duration: Duration) -> Duration {
    match percent {
        Some(percent) if percent >= MIN_PERCENT => {
            let left = f64::from(100 - percent.min(100));
            elapsed.mul_f64(left / f64::from(percent))
        }
        _ => duration.saturating_sub(elapsed).max(elapsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_000;

    fn read(next: i64, end: i64, metadata: &str) -> (u32, Option<u64>) {
        let offsets = PartitionOffsets {
            partition: 0,
            next,
            end,
            record: OffsetMetadata::parse(metadata),
        };
        let reading = GroupReading::new(&[offsets], None, NOW_S).partitions[&0];
        (reading.queued, reading.rest.map(|rest| rest.as_secs()))
    }

    #[test]
    fn the_running_message_is_not_queued_and_its_rest_follows_from_its_progress() {
        for (next, end, metadata, expected) in [
            (7, 7, "", (0, None)),
            (7, 9, "", (2, None)),
            // A commit that is newer than the end that was read.
            (8, 7, "", (0, None)),
            // Without a message none runs, whatever the record has.
            (7, 7, "start=990", (0, None)),
            (7, 8, "start=990", (0, Some(20))),
            (7, 9, "start=980;last=60", (1, Some(40))),
            (7, 8, "start=900;last=60", (0, Some(100))),
            (7, 8, "start=990;percent=25;last=600", (0, Some(30))),
            (7, 8, "start=990;percent=100", (0, Some(0))),
            (7, 8, "start=990;percent=4", (0, Some(20))),
            // The worker's clock is ahead.
            (7, 8, "start=1500", (0, Some(30))),
        ] {
            assert_eq!(read(next, end, metadata), expected, "{next} {end} {metadata}");
        }
    }

    #[test]
    fn a_message_is_expected_to_take_the_median_of_what_workers_report() {
        let seconds = Duration::from_secs;
        for (reported, expected) in [
            (vec![], DEFAULT_DURATION),
            (vec![seconds(20)], seconds(20)),
            (vec![seconds(20), seconds(4_000), seconds(25)], seconds(25)),
            (vec![Duration::ZERO], MIN_DURATION),
            (vec![Duration::MAX], MAX_DURATION),
        ] {
            assert_eq!(
                median_duration(reported.iter().copied()),
                expected,
                "{reported:?}"
            );
        }
    }
}
