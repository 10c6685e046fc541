//! When the messages of a group's partitions arrived. Pure.
//!
//! A message arrived at the time of the first reading whose end offset is beyond it. For messages that the first reading
//! finds, offsets are requested by time, at [`AGES`], until brokers have reported all of them; only with a start
//! deadline, otherwise they count as arrived at that reading.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use separation_kafka::TopicPartition;

use super::TopicOffsets;
use crate::decide::{Lag, LagByPartition, Moment, PartitionQueue, Queue, RunningTask};

/// Ages that distinguish the messages of the first reading, oldest first, as multiples of a third of the deadline.
pub(super) const AGES: [u32; 3] = [3, 2, 1];

/// Arrivals within this part of the deadline count as simultaneous.
const RESOLUTION: u32 = 64;

/// Newest steps of a partition that are all kept with a start deadline, 2 kB: they cover twice the deadline. Older
/// messages may count as younger, and are late nevertheless.
const NEWEST_STEPS: usize = 128;

/// Steps before the newest ones that are kept of a partition, 1 kB, evenly spread.
const SPREAD_STEPS: usize = 64;

/// Rounds in which brokers are asked for the ages of a partition's first messages: one may be interrupted, and brokers
/// that cannot answer are not asked forever.
const AGE_ROUNDS: u8 = 3;

/// Arrival times of a group's messages in one topic.
#[derive(Debug, Default)]
pub(super) struct QueueHistory {
    partitions: BTreeMap<i32, Arrivals>,
}

/// Arrival times of a partition's messages.
#[derive(Debug)]
struct Arrivals {
    /// Offsets with times, both ascending: messages before an offset arrived by its time, and those before the previous
    /// offset by the previous time. Never empty; the last offset is the end.
    steps: VecDeque<(i64, Moment)>,
    /// The end at the first reading, until the ages of the messages before it are known, or none of them is queued.
    first_end: Option<i64>,
    /// Rounds in which the ages can still be asked for.
    age_rounds: u8,
}

impl QueueHistory {
    /// Records a reading at `now`. With a start deadline, returns the partitions whose queued messages had arrived before
    /// their first reading: each partition until [`set_ages`](Self::set_ages) records all its ages.
    pub(super) fn record(
        &mut self,
        offsets: &TopicOffsets,
        lag: &Lag,
        start_deadline: Option<Duration>,
        now: Moment,
    ) -> Vec<i32> {
        let mut without_ages = Vec::new();
        for partition in &offsets.partitions {
            let Ok(end) = partition.end else { continue };
            let number = partition.partition;
            let arrivals = self
                .partitions
                .entry(number)
                .or_insert_with(|| Arrivals::new(end, now));
            arrivals.extend(end, start_deadline, now);
            let Some(first) = first_queued(known(lag), number, end) else {
                continue;
            };
            arrivals.forget_before(first);
            arrivals.first_end = arrivals.first_end.filter(|before| first < *before);
            if start_deadline.is_some() && arrivals.first_end.is_some() && arrivals.age_rounds > 0 {
                arrivals.age_rounds -= 1;
                without_ages.push(number);
            }
        }
        without_ages
    }

    /// Records the first offsets in a topic's partitions whose messages arrived later than these times, oldest first.
    /// Partitions for which some of the [`AGES`] are missing are asked for again.
    pub(super) fn set_ages(&mut self, topic: &Arc<str>, ages: &BTreeMap<TopicPartition, Vec<(i64, Moment)>>) {
        for (partition, arrivals) in &mut self.partitions {
            let partition = TopicPartition {
                topic: Arc::clone(topic),
                partition: *partition,
            };
            let complete = ages.get(&partition).filter(|ages| ages.len() == AGES.len());
            if let (Some(ages), Some(_)) = (complete, arrivals.first_end) {
                arrivals.set_ages(ages);
                arrivals.first_end = None;
            }
        }
    }

    /// The queued messages at the last recorded reading; none if its lag is unknown. `running` returns the task of the
    /// message at an offset of a partition.
    pub(super) fn queue(
        &self,
        offsets: &TopicOffsets,
        lag: &Lag,
        running: impl Fn(i32, i64) -> Option<RunningTask>,
    ) -> Option<Queue> {
        let lag = known(lag)?;
        let partitions = offsets.partitions.iter().filter_map(|partition| {
            let number = partition.partition;
            let end = *partition.end.as_ref().ok()?;
            let first = first_queued(Some(lag), number, end).filter(|first| *first < end)?;
            Some(PartitionQueue {
                partition: number,
                arrivals: self.partitions.get(&number)?.between(first, end),
                running: running(number, first),
            })
        });
        Some(Queue {
            partitions: partitions.collect(),
        })
    }
}

fn known(lag: &Lag) -> Option<&LagByPartition> {
    match lag {
        Lag::Known(lag) | Lag::Partial { known: lag, .. } => Some(lag),
        Lag::Unknown { .. } => None,
    }
}

/// The offset of a partition's first message that is not committed; its end without one, `None` if unknown.
fn first_queued(lag: Option<&LagByPartition>, partition: i32, end: i64) -> Option<i64> {
    Some(end.saturating_sub_unsigned(lag?.messages_in(partition)?))
}

impl Arrivals {
    fn new(end: i64, now: Moment) -> Self {
        Self {
            steps: VecDeque::from([(end, now)]),
            first_end: Some(end),
            age_rounds: AGE_ROUNDS,
        }
    }

    fn extend(&mut self, end: i64, start_deadline: Option<Duration>, now: Moment) {
        let (resolution, newest) = match start_deadline {
            Some(deadline) => (deadline / RESOLUTION, NEWEST_STEPS),
            None => (Duration::ZERO, 0),
        };
        match self.steps.back_mut() {
            Some((last, _)) if *last >= end => {}
            Some((last, at)) if now.since(*at) < resolution => *last = end,
            _ => self.steps.push_back((end, now)),
        }
        if self.steps.len() > SPREAD_STEPS + newest {
            // Messages of the removed step count as arrived with the next one. The first step stays: its time is exact.
            let between_neighbors = |index: &usize| self.steps[index + 1].1.since(self.steps[index - 1].1);
            if let Some(index) = (1..SPREAD_STEPS).min_by_key(between_neighbors) {
                self.steps.remove(index);
            }
        }
    }

    /// Forgets the steps of committed messages, except the end.
    fn forget_before(&mut self, first: i64) {
        while self.steps.len() > 1 && self.steps[0].0 <= first {
            self.steps.pop_front();
        }
    }

    fn set_ages(&mut self, ages: &[(i64, Moment)]) {
        for &(offset, at) in ages.iter().rev() {
            let (first, first_at) = self.steps[0];
            let at = at.min(first_at);
            if offset < first {
                self.steps.push_front((offset, at));
            } else {
                // All messages of the first step are at least as old.
                self.steps[0].1 = at;
            }
        }
    }

    /// Times with the numbers of messages from `first` to `end` that arrived then.
    fn between(&self, first: i64, end: i64) -> Vec<(Moment, u64)> {
        let mut from = first;
        let mut arrivals = Vec::new();
        for &(offset, at) in &self.steps {
            let until = offset.min(end);
            if from < until {
                arrivals.push((at, until.abs_diff(from)));
                from = until;
            }
        }
        arrivals
    }
}

#[cfg(test)]
mod tests;
