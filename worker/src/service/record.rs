//! The metadata record committed with the offset of the running message: its fields, and when they are committed.
//!
//! Committing the message's own offset also asks the broker whether this member still owns the partition. Only one
//! commit is in flight at a time, so an earlier record never overwrites a later one or the next offset. Progress is the
//! least important field: it is committed in one try, never while another commit runs or waits, and never once
//! publishing began or the brokers refused its length.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use separation_contract::offset_metadata::{Hold, OffsetMetadata};
use tokio::sync::{Mutex, Notify};

use crate::clock::unix_time;
use crate::kafka::{CommitError, CommitTry, Consumer, Position};

/// Commits of a group member that processes one message.
pub(super) trait Commits {
    /// Commits `position` as the next offset to read. Retries while that can succeed.
    async fn commit(&self, position: Position, record: &OffsetMetadata) -> Result<(), CommitError>;

    /// Commits in one try.
    async fn commit_once(
        &self,
        position: Position,
        record: &OffsetMetadata,
    ) -> Result<CommitTry, CommitError>;
}

impl Commits for Consumer {
    async fn commit(&self, position: Position, record: &OffsetMetadata) -> Result<(), CommitError> {
        Consumer::commit(self, position, record).await
    }

    async fn commit_once(
        &self,
        position: Position,
        record: &OffsetMetadata,
    ) -> Result<CommitTry, CommitError> {
        Consumer::commit_once(self, position, record).await
    }
}

/// The record of one message, and the commits that write it.
pub(super) struct Record<'s, C> {
    commits: &'s C,
    position: Position,
    /// Minimum time between two commits of progress.
    progress_interval: Duration,
    fields: RefCell<Fields>,
    /// Notified when the fields change.
    changed: Notify,
    /// Held during a commit.
    commit_lock: Mutex<()>,
    /// Time of the last request by which the broker confirmed this member's ownership. `None` at first: after a freeze
    /// of this process, the partition of a fetched message may have another owner.
    confirmed_at: Cell<Option<Instant>>,
}

/// The fields of the record. Pure: no client, no clock.
#[derive(Debug, Default)]
struct Fields {
    /// The record as committed before this worker consumed the message.
    committed: OffsetMetadata,
    /// When processing started, in Unix seconds.
    start: Option<u64>,
    /// The worker was asked to stop.
    draining: bool,
    /// Progress of the work, 0 to 100.
    percent: Option<u8>,
    /// The progress in the last committed record.
    committed_percent: Option<u8>,
    /// The dependency that refuses the worker.
    held: Option<Hold>,
    /// Whether a dependency ever refused the worker during this message.
    was_held: bool,
    /// Whether the message is left to another worker: nothing of it runs here any more.
    released: bool,
    /// The message is in the dead-letter topic.
    dead_lettered: bool,
    /// Whether the committed record was read; nothing is committed before.
    loaded: bool,
    /// Whether fields other than the progress changed since they were last committed.
    changed: bool,
    /// Whether publishing began.
    publishing: bool,
    /// Whether a record with progress is too long for the brokers.
    too_long: bool,
    /// Whether the next offset was committed; this record is no longer written.
    completed: bool,
}

impl<'s, C: Commits> Record<'s, C> {
    pub(super) fn new(commits: &'s C, position: Position, progress_interval: Duration) -> Self {
        Self {
            commits,
            position,
            progress_interval,
            fields: RefCell::default(),
            changed: Notify::new(),
            commit_lock: Mutex::new(()),
            confirmed_at: Cell::new(None),
        }
    }

    /// Stores the committed record, and the time at which a commit confirmed the ownership, if one did.
    pub(super) fn load(&self, record: OffsetMetadata, confirmed_at: Option<Instant>) {
        let mut fields = self.fields.borrow_mut();
        fields.committed = record;
        fields.loaded = true;
        if fields.changed {
            self.changed.notify_one();
        }
        self.confirmed_at.set(confirmed_at);
    }

    /// Number of earlier attempts.
    pub(super) fn attempts(&self) -> u32 {
        self.fields.borrow().committed.attempt
    }

    /// When the last attempt began, in Unix seconds: this one, or an earlier one whose result is published now.
    pub(super) fn started_at(&self) -> Option<u64> {
        self.fields.borrow().record().start
    }

    /// Records that processing starts now. [`Self::write_changes`] commits it.
    pub(super) fn start(&self) {
        self.change(|fields| fields.start = Some(unix_time().as_secs()));
    }

    /// Records the progress of the work, 0 to 100. [`Self::write_changes`] commits it at intervals.
    pub(super) fn progress(&self, percent: u8) {
        self.fields.borrow_mut().percent = Some(percent);
    }

    /// Progress of this attempt, 0 to 100.
    pub(super) fn percent(&self) -> u8 {
        self.fields.borrow().percent.unwrap_or(0)
    }

    /// Whether publishing, or the commit of the next offset, began.
    pub(super) fn is_ending(&self) -> bool {
        let fields = self.fields.borrow();
        fields.publishing || fields.completed
    }

    /// Records that the worker was asked to stop. The platform may kill it, so this attempt does not count.
    pub(super) fn drain(&self) {
        self.change(|fields| fields.draining = true);
    }

    /// Records the dependency that refuses the worker, if any. An attempt does not count while it is on hold.
    pub(super) fn hold(&self, held: Option<Hold>) {
        self.change(|fields| {
            fields.was_held |= held.is_some();
            fields.held = held;
        });
    }

    /// Whether a dependency ever refused the worker during this message, whose time is then not that of its work.
    pub(super) fn was_held(&self) -> bool {
        self.fields.borrow().was_held
    }

    /// Whether the message is in the dead-letter topic.
    pub(super) fn is_dead_lettered(&self) -> bool {
        self.fields.borrow().record().dead_lettered
    }

    /// Records that the message is in the dead-letter topic.
    pub(super) fn record_dead_letter(&self) {
        self.change(|fields| fields.dead_lettered = true);
    }

    fn change(&self, change: impl FnOnce(&mut Fields)) {
        let mut fields = self.fields.borrow_mut();
        let before = fields.record();
        change(&mut fields);
        if fields.record() != before {
            fields.changed = true;
            self.changed.notify_one();
        }
    }

    /// Commits the record whenever it changes, and new progress at intervals; returns only with an error after which
    /// the client cannot continue. A lost partition is handled by `Flow`.
    pub(super) async fn write_changes(&self) -> CommitError {
        loop {
            let written = tokio::select! {
                () = self.changed.notified() => self.write_changed().await,
                () = tokio::time::sleep(self.progress_interval) => self.write_progress().await,
            };
            match written {
                Ok(()) => {}
                Err(CommitError::Lost | CommitError::NoTopic) => std::future::pending().await,
                Err(error) => return error,
            }
        }
    }

    /// Commits the record if it changed since the last commit.
    pub(super) async fn write_changed(&self) -> Result<(), CommitError> {
        let _lock = self.commit_lock.lock().await;
        if self.fields.borrow().changed {
            self.write().await?;
        }
        Ok(())
    }

    /// Commits new progress, unless another commit runs or waits: later ones include it.
    async fn write_progress(&self) -> Result<(), CommitError> {
        let Ok(_lock) = self.commit_lock.try_lock() else {
            return Ok(());
        };
        let Some(record) = self.fields.borrow().new_progress() else {
            return Ok(());
        };
        let requested_at = Instant::now();
        match self.commits.commit_once(self.position, &record).await? {
            CommitTry::Accepted => {
                self.fields.borrow_mut().committed_percent = record.percent;
                self.confirmed_at.set(Some(requested_at));
            }
            CommitTry::Failed => {}
            CommitTry::RecordTooLong => self.fields.borrow_mut().too_long = true,
        }
        Ok(())
    }

    /// Asks the broker whether this member still owns the partition, unless it confirmed that within `fresh`. Called
    /// right before anything is published: progress is not committed from now on.
    pub(super) async fn confirm(&self, fresh: Duration) -> Result<(), CommitError> {
        self.fields.borrow_mut().publishing = true;
        let is_fresh = || self.confirmed_at.get().is_some_and(|at| at.elapsed() <= fresh);
        if is_fresh() {
            return Ok(());
        }
        let _lock = self.commit_lock.lock().await;
        if is_fresh() {
            return Ok(());
        }
        self.write().await
    }

    /// Commits the record. The caller holds `commit_lock`.
    async fn write(&self) -> Result<(), CommitError> {
        let Some(record) = self.fields.borrow_mut().take() else {
            return Ok(());
        };
        // The session lasts at least `session.timeout.ms` from this time on.
        let requested_at = Instant::now();
        self.commits.commit(self.position, &record).await?;
        self.confirmed_at.set(Some(requested_at));
        Ok(())
    }

    /// Commits that this attempt does not count and does not run, because the worker leaves the message to another one. Also if such a
    /// commit was requested before: its caller may have been dropped before the response.
    pub(super) async fn release(&self) -> Result<(), CommitError> {
        self.drain();
        self.hold(None);
        self.change(|fields| fields.released = true);
        let _lock = self.commit_lock.lock().await;
        self.write().await
    }

    /// Commits `next` as the next offset to read, with the time that the message took if it was completed. No record of
    /// this message is written afterwards.
    pub(super) async fn commit_next(
        &self,
        next: Position,
        took: Option<Duration>,
    ) -> Result<(), CommitError> {
        let _lock = self.commit_lock.lock().await;
        self.fields.borrow_mut().completed = true;
        self.commits.commit(next, &OffsetMetadata::last(took)).await
    }
}

impl Fields {
    /// The record with these fields. Fields of other versions are kept.
    fn record(&self) -> OffsetMetadata {
        let mut record = self.committed.clone();
        record.held.clone_from(&self.held);
        record.dead_lettered |= self.dead_lettered;
        if self.start.is_some() {
            let counts = !self.draining && self.held.is_none();
            record.attempt = self.committed.attempt.saturating_add(u32::from(counts));
            record.draining = self.draining;
            record.start = self.start;
            record.percent = self.percent;
        }
        if self.released {
            record.start = None;
            record.percent = None;
        }
        record
    }

    /// The record to commit now; `None` if none may be committed.
    fn take(&mut self) -> Option<OffsetMetadata> {
        if self.completed || !self.loaded {
            return None;
        }
        self.changed = false;
        let record = self.record();
        self.committed_percent = record.percent;
        Some(record)
    }

    /// The record to commit with new progress; `None` if there is none, or none may be committed.
    fn new_progress(&self) -> Option<OffsetMetadata> {
        let is_new = self.start.is_some() && self.percent != self.committed_percent;
        let is_allowed = !self.changed && !self.publishing && !self.too_long && !self.completed;
        (is_new && is_allowed).then(|| self.record())
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded_fields(text: &str) -> Fields {
        Fields {
            committed: OffsetMetadata::parse(text),
            loaded: true,
            ..Fields::default()
        }
    }

    #[test]
    fn a_start_counts_an_attempt_and_keeps_fields_of_other_versions_and_the_time_of_the_last_message() {
        let mut fields = loaded_fields("attempt=1;draining=1;start=5;percent=40;last=77.5;later=7");
        assert_eq!(
            fields.record().to_string(),
            "attempt=1;draining=1;start=5;percent=40;last=77.5;later=7"
        );
        fields.start = Some(9);
        assert_eq!(fields.record().to_string(), "attempt=2;start=9;last=77.5;later=7");
    }

    #[test]
    fn an_attempt_does_not_count_once_the_worker_was_asked_to_stop() {
        let mut fields = loaded_fields("attempt=1");
        fields.draining = true;
        assert_eq!(
            fields.record().to_string(),
            "attempt=1",
            "processing has not started"
        );
        fields.start = Some(9);
        assert_eq!(fields.record().to_string(), "attempt=1;draining=1;start=9");
    }

    #[test]
    fn a_released_message_has_neither_start_nor_progress() {
        let mut fields = loaded_fields("attempt=1;start=5;percent=40");
        fields.draining = true;
        fields.released = true;
        assert_eq!(
            fields.record().to_string(),
            "attempt=1",
            "processing has not started"
        );
        fields.start = Some(9);
        fields.percent = Some(60);
        assert_eq!(fields.record().to_string(), "attempt=1;draining=1");
    }

    #[test]
    fn an_attempt_does_not_count_while_it_is_on_hold() {
        let mut fields = loaded_fields("");
        fields.start = Some(9);
        fields.held = Some(Hold::new("s3:403", 10));
        assert_eq!(fields.record().to_string(), "start=9;held=s3:403@10");
        fields.held = None;
        assert_eq!(fields.record().to_string(), "attempt=1;start=9");
    }

    #[test]
    fn progress_is_committed_once_and_not_while_another_commit_follows_or_publishing_began() {
        let mut fields = loaded_fields("attempt=1;start=5;percent=40");
        fields.percent = Some(1);
        assert_eq!(fields.new_progress(), None, "processing has not started");
        fields.start = Some(9);
        fields.changed = true;
        assert_eq!(fields.new_progress(), None, "the start is committed with it");
        let taken = fields.take().expect("a record");
        assert_eq!(taken.to_string(), "attempt=2;start=9;percent=1");
        assert_eq!(fields.new_progress(), None);
        fields.percent = Some(2);
        let new = fields.new_progress().expect("new progress");
        assert_eq!(new.to_string(), "attempt=2;start=9;percent=2");
        fields.publishing = true;
        assert_eq!(fields.new_progress(), None);
    }

    #[test]
    fn a_dead_letter_is_recorded_for_the_next_worker_of_the_message() {
        let mut fields = loaded_fields("attempt=1");
        fields.dead_lettered = true;
        assert_eq!(fields.record().to_string(), "attempt=1;letter=1");
        assert!(loaded_fields("attempt=1;letter=1").record().dead_lettered);
    }

    #[test]
    fn a_record_that_was_not_read_is_not_overwritten() {
        let mut fields = Fields {
            changed: true,
            ..Fields::default()
        };
        assert_eq!(fields.take(), None);
        assert!(fields.changed, "it is written later");
    }

    #[test]
    fn the_next_offset_is_not_overwritten_by_a_record() {
        let mut fields = loaded_fields("attempt=1");
        fields.changed = true;
        assert_eq!(fields.take(), Some(OffsetMetadata::attempt(1)));
        assert!(!fields.changed);
        fields.completed = true;
        assert_eq!(fields.take(), None);
    }
}
