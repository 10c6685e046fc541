//! Chooses partitions for messages, so that each begins as early as possible: of an idle member of the consumer group,
//! else of the member that is expected to begin it first.
//!
//! Messages share readings of the group; each process has its own. One reading runs at a time, in the background while
//! the last one is recent. A message waits only without a recent reading, for [`WAIT_LIMIT`] at most: if there is still
//! none, the partition is that of the message key's hash.

mod choice;
mod group_reading;
mod reader;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use separation_kafka::{Deadline, ReadError};
use tokio::sync::OwnedMutexGuard;

pub use self::choice::PlacementKind;

use self::choice::Chooser;
use self::group_reading::GroupReading;
use self::reader::{ReadGroup, Reader};
use super::message::Position;
use super::progress::GroupProgress;
use crate::clock::unix_time;

/// Time from the start of a reading to the next one.
const REFRESH_AFTER: Duration = Duration::from_secs(1);

/// Limit of one reading.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// Longest time from the start of a reading to its last use: until the end of the slowest next one.
const MAX_AGE: Duration = REFRESH_AFTER.saturating_add(READ_LIMIT);

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
    reader: Arc<tokio::sync::Mutex<dyn ReadGroup>>,
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
        Self::with_reader(reader, State::new(Arc::clone(group), first_turn as usize))
    }

    fn with_reader(reader: impl ReadGroup + 'static, state: State) -> Self {
        Self(Arc::new(Shared {
            reader: Arc::new(tokio::sync::Mutex::new(reader)),
            state: Mutex::new(state),
        }))
    }

    /// The partition of the next message; none: that of its message key's hash. Waits for a reading, for 250 ms at most,
    /// only if there is no recent one.
    pub async fn place(&self) -> (Option<i32>, PlacementKind) {
        let now = monotonic_time();
        let (is_due, is_recent) = {
            let state = self.0.state();
            (state.is_due(now), state.is_recent(now))
        };
        if is_due {
            self.start_reading();
        }
        if is_due && !is_recent {
            // It is unlocked at the end of the reading, whose outcome is in the state.
            let _ = tokio::time::timeout(WAIT_LIMIT, self.0.reader.lock()).await;
        }
        self.0.state().choose(monotonic_time())
    }

    /// Starts a reading in the background, unless one runs.
    fn start_reading(&self) {
        if let Ok(reader) = Arc::clone(&self.0.reader).try_lock_owned() {
            let shared = Arc::clone(&self.0);
            tokio::spawn(async move { shared.read(reader).await });
        }
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

    /// Reads the group, unless a reading has ended in the meantime.
    async fn read(&self, mut reader: OwnedMutexGuard<dyn ReadGroup>) {
        let begun = monotonic_time();
        if !self.state().is_due(begun) {
            return;
        }
        let read = reader
            .read(unix_time().as_secs(), &Deadline::after(READ_LIMIT))
            .await;
        self.state().record(read, begun, monotonic_time());
    }
}

/// Tokio's, which tests pause.
fn monotonic_time() -> Instant {
    tokio::time::Instant::now().into_std()
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

    /// Whether the last complete reading may be used.
    fn is_recent(&self, now: Instant) -> bool {
        self.read_at
            .is_some_and(|read_at| now.saturating_duration_since(read_at) < MAX_AGE)
    }

    fn record(&mut self, read: Result<GroupReading, ReadError>, begun: Instant, now: Instant) {
        match read {
            Ok(reading) => {
                self.chooser.update(reading, now);
                self.read_at = Some(begun);
                self.due_at = Some(begun + REFRESH_AFTER);
                self.error = None;
            }
            Err(error) => {
                self.due_at = Some(now + RETRY_PAUSE);
                self.error = Some(error);
            }
        }
    }

    fn choose(&mut self, now: Instant) -> (Option<i32>, PlacementKind) {
        let chosen = match self.is_recent(now) {
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::BoxFuture;
    use separation_contract::offset_metadata::OffsetMetadata;

    use super::group_reading::PartitionOffsets;
    use super::*;

    /// A group with one idle member whose readings take this long.
    struct SlowGroup {
        takes: Duration,
        readings: Arc<AtomicU32>,
    }

    impl ReadGroup for SlowGroup {
        fn read<'a>(&'a mut self, _: u64, _: &'a Deadline) -> BoxFuture<'a, Result<GroupReading, ReadError>> {
            Box::pin(async move {
                self.readings.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(self.takes).await;
                one_idle_member()
            })
        }
    }

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
    fn a_reading_serves_until_the_next_one_can_have_ended() {
        let mut state = State::new("group".into(), 0);
        let begun = Instant::now();
        assert!(state.is_due(begun));
        let read = begun + READ_LIMIT / 2;
        state.record(one_idle_member(), begun, read);
        let due = begun + REFRESH_AFTER;
        for (now, is_due, chosen) in [
            (read, false, (Some(3), PlacementKind::Idle)),
            (due, true, (Some(3), PlacementKind::Shortest)),
            (due + READ_LIMIT / 2, true, (Some(3), PlacementKind::Shortest)),
            (due + READ_LIMIT, true, (None, PlacementKind::Hashed)),
        ] {
            assert_eq!(state.is_due(now), is_due);
            assert_eq!(state.choose(now), chosen);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_only_without_a_recent_reading_however_slow_readings_are() {
        for takes in [10, 300, 800].map(Duration::from_millis) {
            let readings = Arc::new(AtomicU32::new(0));
            let group = SlowGroup {
                takes,
                readings: Arc::clone(&readings),
            };
            let placement = Placement::with_reader(group, State::new("group".into(), 0));
            let begun = monotonic_time();
            let (partition, _) = placement.place().await;
            assert_eq!(partition.is_some(), takes < WAIT_LIMIT);
            assert!(monotonic_time() - begun >= takes.min(WAIT_LIMIT));
            tokio::time::sleep_until((begun + REFRESH_AFTER).into()).await;
            for message in 0..50 {
                let placed = monotonic_time();
                let (partition, _) = placement.place().await;
                let waited = monotonic_time() - placed;
                assert_eq!(
                    (partition, waited),
                    (Some(3), Duration::ZERO),
                    "{takes:?}, {message}"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // The first, and one in each of the following seconds.
            let readings = readings.load(Ordering::Relaxed);
            assert!((5..=7).contains(&readings), "{takes:?}: {readings}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_without_a_recent_reading_share_one() {
        let readings = Arc::new(AtomicU32::new(0));
        let group = SlowGroup {
            takes: WAIT_LIMIT / 2,
            readings: Arc::clone(&readings),
        };
        let placement = Placement::with_reader(group, State::new("group".into(), 0));
        let placed = tokio::join!(placement.place(), placement.place(), placement.place());
        let partitions = [placed.0.0, placed.1.0, placed.2.0];
        assert_eq!(partitions, [Some(3); 3]);
        assert_eq!(readings.load(Ordering::Relaxed), 1);
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
