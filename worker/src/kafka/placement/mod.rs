//! Chooses partitions for messages, so that each begins as early as possible: of an idle member of the consumer group,
//! else of the member that is expected to begin it first.
//!
//! All messages of one second share one reading of the group; each process has its own. No message waits for longer
//! than [`WAIT_LIMIT`]: without a recent reading, the partition is that of the message key's hash.

mod choice;
mod group_reading;
mod reader;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use separation_kafka::{Deadline, ReadError};

pub use self::choice::PlacementKind;

use self::choice::Chooser;
use self::group_reading::GroupReading;
use self::reader::Reader;
use super::message::Position;
use super::progress::GroupProgress;
use crate::clock::unix_time;

/// Longest time from the start of a reading to its last use.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Longest time that a message waits for a reading.
const WAIT_LIMIT: Duration = Duration::from_millis(250);

/// Pause after a reading that failed, in which no message waits for another one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Minimum time between two warnings.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Chooses partitions of one topic by the state of one consumer group.
pub struct Placement(Arc<Shared>);

struct Shared {
    /// Locked during a reading.
    reader: tokio::sync::Mutex<Reader>,
    state: Mutex<State>,
}

/// The last reading, and when the next one is due.
struct State {
    group: Arc<str>,
    chooser: Chooser,
    /// When the last complete reading began.
    read_at: Option<Instant>,
    /// When the next reading is due; immediately at first.
    due_at: Option<Instant>,
    /// Why the last reading failed, if it did.
    error: Option<ReadError>,
    warned_at: Option<Instant>,
}

impl Placement {
    /// For the group and the topic of `progress`, over its connections.
    #[must_use]
    pub fn new(progress: &GroupProgress) -> Self {
        let GroupProgress {
            cluster,
            group,
            topic,
        } = progress;
        let reader = Reader::new(Arc::clone(cluster), Arc::clone(group), Arc::clone(topic));
        // Random, so that several processes choose differently among equal partitions.
        let first_turn = RandomState::new().hash_one(0) % u64::from(u32::MAX);
        Self(Arc::new(Shared {
            reader: tokio::sync::Mutex::new(reader),
            state: Mutex::new(State::new(Arc::clone(group), first_turn as usize)),
        }))
    }

    /// The partition of the next message, within 250 ms; none: that of its message key's hash.
    pub async fn place(&self) -> (Option<i32>, PlacementKind) {
        let mut now = Instant::now();
        let is_due = self.0.state().is_due(now);
        if is_due {
            let shared = Arc::clone(&self.0);
            // Continues for the next messages if this one does not wait for its end.
            let reading = tokio::spawn(async move { shared.read().await });
            // The state has the outcome.
            let _ = tokio::time::timeout(WAIT_LIMIT, reading).await;
            now = Instant::now();
        }
        self.0.state().choose(now)
    }

    /// A message was published at this position.
    pub fn published(&self, position: Position) {
        self.0.state().chooser.published(position);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the group, unless another message has had it read in the meantime.
    async fn read(&self) {
        let mut reader = self.reader.lock().await;
        let begun = Instant::now();
        if !self.state().is_due(begun) {
            return;
        }
        let read = reader
            .read(unix_time().as_secs(), &Deadline::after(MAX_AGE))
            .await;
        self.state().record(read, begun, Instant::now());
    }
}

impl State {
    fn new(group: Arc<str>, first_turn: usize) -> Self {
        Self {
            group,
            chooser: Chooser::new(first_turn),
            read_at: None,
            due_at: None,
            error: None,
            warned_at: None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due_at.is_none_or(|due_at| now >= due_at)
    }

    fn record(&mut self, read: Result<GroupReading, ReadError>, begun: Instant, now: Instant) {
        match read {
            Ok(reading) => {
                self.chooser.update(reading, now);
                self.read_at = Some(begun);
                self.due_at = Some(begun + MAX_AGE);
                self.error = None;
            }
            Err(error) => {
                self.due_at = Some(now + RETRY_PAUSE);
                self.error = Some(error);
            }
        }
    }

    fn choose(&mut self, now: Instant) -> (Option<i32>, PlacementKind) {
        let is_recent = |read_at| now.saturating_duration_since(read_at) < MAX_AGE;
        let chosen = match self.read_at.is_some_and(is_recent) {
            true => self.chooser.choose(now),
            false => None,
        };
        if let Some((partition, kind)) = chosen {
            return (Some(partition), kind);
        }
        if self
            .warned_at
            .is_none_or(|warned_at| now.saturating_duration_since(warned_at) >= WARNING_PAUSE)
        {
            self.warned_at = Some(now);
            self.warn();
        }
        (None, PlacementKind::Hashed)
    }

    fn warn(&self) {
        let slow = || format!("no response within {} ms", WAIT_LIMIT.as_millis());
        let error = self.error.as_ref().map_or_else(slow, ToString::to_string);
        tracing::warn!(
            group = %self.group,
            error,
            "Cannot read the consumer group; messages are placed by the hash of their message key"
        );
    }
}

#[cfg(test)]
mod tests {
    use separation_contract::offset_metadata::OffsetMetadata;

    use super::group_reading::PartitionOffsets;
    use super::*;

    fn one_idle_member() -> Result<GroupReading, ReadError> {
        let offsets = PartitionOffsets {
            partition: 3,
            next: 0,
            end: 0,
            record: OffsetMetadata::default(),
        };
        Ok(GroupReading::new(&[offsets], Some(vec![vec![3]]), 0))
    }

    #[test]
    fn a_reading_serves_the_messages_of_one_second() {
        let mut state = State::new("group".into(), 0);
        let begun = Instant::now();
        assert!(state.is_due(begun));
        let read = begun + MAX_AGE / 4;
        state.record(one_idle_member(), begun, read);
        for (now, chosen) in [
            (read, (Some(3), PlacementKind::Idle)),
            (begun + MAX_AGE - WAIT_LIMIT, (Some(3), PlacementKind::Shortest)),
            (begun + MAX_AGE, (None, PlacementKind::Hashed)),
        ] {
            assert_eq!(state.is_due(now), chosen.0.is_none());
            assert_eq!(state.choose(now), chosen);
        }
    }

    #[test]
    fn while_readings_fail_messages_are_hashed_and_few_wait() {
        let mut state = State::new("group".into(), 0);
        let begun = Instant::now();
        let failed = begun + WAIT_LIMIT;
        state.record(Err(ReadError::new("not authorized")), begun, failed);
        assert!(!state.is_due(failed + RETRY_PAUSE / 2));
        assert_eq!(state.choose(failed), (None, PlacementKind::Hashed));
        assert_eq!(state.warned_at, Some(failed));
        state.choose(failed + WARNING_PAUSE / 2);
        assert_eq!(state.warned_at, Some(failed), "one warning a minute");
        state.choose(failed + WARNING_PAUSE);
        assert_eq!(state.warned_at, Some(failed + WARNING_PAUSE));
        let retried = failed + RETRY_PAUSE;
        assert!(state.is_due(retried));
        state.record(one_idle_member(), retried, retried);
        assert_eq!(state.choose(retried), (Some(3), PlacementKind::Idle));
    }
}
