//! Chooses the partition of a message. Pure: no client, no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::message::Position;
use super::group_reading::{GroupReading, PartitionReading};

/// How long a chosen partition counts without a reading that includes its message: longer than publishing takes, and
/// than a reading after it.
const PLACED_LIMIT: Duration = Duration::from_secs(5);

/// How a partition was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementKind {
    /// It is assigned to a member without any message.
    Idle,
    /// It is assigned to the member that is expected to begin the message first.
    Shortest,
    /// No member is known; it has the fewest messages.
    RoundRobin,
    /// By the hash of the message key.
    Hashed,
}

impl PlacementKind {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Shortest => "shortest",
            Self::RoundRobin => "round_robin",
            Self::Hashed => "hashed",
        }
    }
}

/// Chooses partitions by the last reading and by the choices that it does not include yet.
#[derive(Debug)]
pub(super) struct Chooser {
    reading: GroupReading,
    /// The partitions of each member, as last reported.
    members: Vec<Vec<i32>>,
    /// Chosen partitions that the reading does not include.
    placed: BTreeMap<i32, Vec<Placed>>,
    /// Number of choices: equal candidates take turns.
    turn: usize,
}

/// A message that is being published, or was published after the reading.
#[derive(Debug)]
struct Placed {
    chosen_at: Instant,
    /// Its offset, once it is published.
    offset: Option<i64>,
}

impl Chooser {
    /// `first_turn` is random, so that several processes choose differently among equal candidates.
    pub(super) fn new(first_turn: usize) -> Self {
        Self {
            reading: GroupReading::default(),
            members: Vec::new(),
            placed: BTreeMap::new(),
            turn: first_turn,
        }
    }

    /// Replaces the reading.
    pub(super) fn update(&mut self, mut reading: GroupReading, now: Instant) {
        for (partition, placed) in &mut self.placed {
            let end = reading.partitions.get(partition).map(|read| read.end);
            placed.retain(|placed| {
                let is_included = placed.offset.zip(end).is_some_and(|(offset, end)| offset < end);
                !is_included && now.saturating_duration_since(placed.chosen_at) < PLACED_LIMIT
            });
        }
        self.placed.retain(|_, placed| !placed.is_empty());
        // Most partitions stay with their members in a rebalance.
        if let Some(members) = reading.members.take() {
            self.members = members;
        }
        self.reading = reading;
    }

    /// The partition of the next message; none if no partition could be read.
    pub(super) fn choose(&mut self, now: Instant) -> Option<(i32, PlacementKind)> {
        self.turn = self.turn.wrapping_add(1);
        let (partition, kind) = self.best()?;
        self.placed.entry(partition).or_default().push(Placed {
            chosen_at: now,
            offset: None,
        });
        Some((partition, kind))
    }

    /// A message was published at this position.
    pub(super) fn published(&mut self, position: Position) {
        let placed = self.placed.get_mut(&position.partition);
        let pending = placed.and_then(|placed| placed.iter_mut().find(|placed| placed.offset.is_none()));
        if let Some(placed) = pending {
            placed.offset = Some(position.offset);
        }
    }

    fn best(&self) -> Option<(i32, PlacementKind)> {
        let can_be_read = |partition: &i32| self.reading.partitions.contains_key(partition);
        let assigned = self.members.iter().map(|partitions| {
            let partitions = partitions.iter().copied().filter(can_be_read);
            partitions.collect::<Vec<_>>()
        });
        let members: Vec<Vec<i32>> = assigned.filter(|partitions| !partitions.is_empty()).collect();
        let best = members.iter().enumerate().min_by_key(|(index, partitions)| {
            let is_busy = !self.is_idle(partitions);
            (
                is_busy,
                self.wait(partitions),
                self.turns_until(*index, members.len()),
            )
        });
        match best {
            Some((_, partitions)) if self.is_idle(partitions) => {
                Some((self.emptiest(partitions)?, PlacementKind::Idle))
            }
            Some((_, partitions)) => Some((self.emptiest(partitions)?, PlacementKind::Shortest)),
            None => {
                let all: Vec<i32> = self.reading.partitions.keys().copied().collect();
                Some((self.emptiest(&all)?, PlacementKind::RoundRobin))
            }
        }
    }

    fn is_idle(&self, partitions: &[i32]) -> bool {
        partitions.iter().all(|partition| self.messages(*partition) == 0)
    }

    /// Expected time until a member with these partitions begins another message.
    fn wait(&self, partitions: &[i32]) -> Duration {
        let waits = partitions.iter().map(|partition| {
            let PartitionReading { queued, rest, .. } = self.read(*partition);
            let queued = queued.saturating_add(self.placed(*partition));
            rest.unwrap_or_default()
                .saturating_add(self.reading.duration.saturating_mul(queued))
        });
        waits.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// The partition with the fewest messages.
    fn emptiest(&self, partitions: &[i32]) -> Option<i32> {
        let turns_until = |index| self.turns_until(index, partitions.len());
        let fewest = partitions
            .iter()
            .enumerate()
            .min_by_key(|(index, partition)| (self.messages(**partition), turns_until(*index)));
        fewest.map(|(_, partition)| *partition)
    }

    /// Messages of a partition, with the running one and those that the reading does not include.
    fn messages(&self, partition: i32) -> u32 {
        let PartitionReading { queued, rest, .. } = self.read(partition);
        queued
            .saturating_add(u32::from(rest.is_some()))
            .saturating_add(self.placed(partition))
    }

    fn read(&self, partition: i32) -> PartitionReading {
        self.reading
            .partitions
            .get(&partition)
            .copied()
            .unwrap_or_default()
    }

    fn placed(&self, partition: i32) -> u32 {
        let placed = self.placed.get(&partition).map_or(0, Vec::len);
        u32::try_from(placed).unwrap_or(u32::MAX)
    }

    /// Number of turns until that of one of `count` candidates.
    fn turns_until(&self, index: usize, count: usize) -> usize {
        (index + count - self.turn % count) % count
    }
}

#[cfg(test)]
mod tests;
