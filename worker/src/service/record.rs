//! The record beside the offset of the message that is worked on: its fields, and when they are committed.
//!
//! Committing the message's own offset also asks the broker whether the message is still this member's. One commit is
//! under way at a time, so an earlier record never overwrites a later one, and none is written over the next offset.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use separation_contract::offset_metadata::{Hold, OffsetMetadata};
use tokio::sync::{Mutex, Notify};

use crate::clock::unix_time;
use crate::kafka::{CommitError, Consumer, Place};

/// The record of one message, and the commits that write it.
pub(super) struct Record<'s> {
    consumer: &'s Consumer,
    place: Place,
    fields: RefCell<Fields>,
    /// Notified when the fields have changed.
    changed: Notify,
    /// Held during a commit.
    turn: Mutex<()>,
    /// When the broker was last asked whether the message is this member's, and confirmed it. `None` at first: a message
    /// that was fetched before this process was frozen may be another member's by now.
    confirmed_at: Cell<Option<Instant>>,
}

/// The fields of the record. Pure: no client, no clock.
#[derive(Debug, Default)]
struct Fields {
    /// As it was committed when the message was taken.
    found: OffsetMetadata,
    /// When work on the message started, in Unix seconds.
    start: Option<u64>,
    /// The worker was asked to stop.
    draining: bool,
    /// What refuses the worker.
    held: Option<Hold>,
    /// The message is in the dead-letter topic.
    letter: bool,
    /// Whether the record was read: nothing is written over it before.
    loaded: bool,
    /// Whether the fields changed since they were last committed.
    changed: bool,
    /// Whether the next offset was committed: the record of this one is over.
    concluded: bool,
}

impl<'s> Record<'s> {
    pub(super) fn new(consumer: &'s Consumer, place: Place) -> Self {
        Self {
            consumer,
            place,
            fields: RefCell::default(),
            changed: Notify::new(),
            turn: Mutex::new(()),
            confirmed_at: Cell::new(None),
        }
    }

    /// The record as it is committed, and when a commit confirmed that the message is this member's, if one did.
    pub(super) fn found(&self, record: OffsetMetadata, confirmed_at: Option<Instant>) {
        let mut fields = self.fields.borrow_mut();
        fields.found = record;
        fields.loaded = true;
        if fields.changed {
            self.changed.notify_one();
        }
        self.confirmed_at.set(confirmed_at);
    }

    /// How often work on the message was started before.
    pub(super) fn attempts(&self) -> u32 {
        self.fields.borrow().found.attempt
    }

    /// Work on the message starts now. [`Self::write_changes`] commits it.
    pub(super) fn start(&self) {
        self.change(|fields| fields.start = Some(unix_time().as_secs()));
    }

    /// The worker was asked to stop, so the platform may end it: this attempt does not count.
    pub(super) fn drain(&self) {
        self.change(|fields| fields.draining = true);
    }

    /// What refuses the worker from now on, if anything. An attempt does not count while it is held.
    pub(super) fn hold(&self, held: Option<Hold>) {
        self.change(|fields| fields.held = held);
    }

    /// Whether the message is in the dead-letter topic.
    pub(super) fn has_letter(&self) -> bool {
        self.fields.borrow().record().letter
    }

    /// The message is in the dead-letter topic from now on.
    pub(super) fn letter(&self) {
        self.change(|fields| fields.letter = true);
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

    /// Commits the record whenever it has changed; ends with an error after which the client cannot go on. A lost
    /// message is left to whoever watches its partition.
    pub(super) async fn write_changes(&self) -> CommitError {
        loop {
            self.changed.notified().await;
            match self.write_changed().await {
                Ok(()) => {}
                Err(CommitError::Lost | CommitError::NoTopic) => std::future::pending().await,
                Err(error) => return error,
            }
        }
    }

    /// Commits the record if it has changed since it was last committed.
    pub(super) async fn write_changed(&self) -> Result<(), CommitError> {
        let _turn = self.turn.lock().await;
        if self.fields.borrow().changed {
            self.write().await?;
        }
        Ok(())
    }

    /// Asks the broker whether the message is still this member's, unless it confirmed that within `fresh`.
    pub(super) async fn confirm(&self, fresh: Duration) -> Result<(), CommitError> {
        let is_fresh = || self.confirmed_at.get().is_some_and(|at| at.elapsed() <= fresh);
        if is_fresh() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if is_fresh() {
            return Ok(());
        }
        self.write().await
    }

    /// Commits the record as it stands. The caller holds the turn.
    async fn write(&self) -> Result<(), CommitError> {
        let Some(record) = self.fields.borrow_mut().take() else {
            return Ok(());
        };
        // A session is at least that long from here on.
        let asked_at = Instant::now();
        self.consumer.commit(self.place, &record).await?;
        self.confirmed_at.set(Some(asked_at));
        Ok(())
    }

    /// Commits that `next` is the next offset to read. No record of this message is written afterwards.
    pub(super) async fn conclude(&self, next: Place) -> Result<(), CommitError> {
        let _turn = self.turn.lock().await;
        self.fields.borrow_mut().concluded = true;
        self.consumer.commit(next, &OffsetMetadata::default()).await
    }
}

impl Fields {
    /// The record that these fields make. Fields of other versions are kept.
    fn record(&self) -> OffsetMetadata {
        let mut record = self.found.clone();
        record.held.clone_from(&self.held);
        record.letter |= self.letter;
        if self.start.is_some() {
            let counts = !self.draining && self.held.is_none();
            record.attempt = self.found.attempt.saturating_add(u32::from(counts));
            record.draining = self.draining;
            record.start = self.start;
            record.percent = None;
        }
        record
    }

    /// The record to commit now, if one may be.
    fn take(&mut self) -> Option<OffsetMetadata> {
        if self.concluded || !self.loaded {
            return None;
        }
        self.changed = false;
        Some(self.record())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Fields {
        Fields {
            found: OffsetMetadata::parse(text),
            loaded: true,
            ..Fields::default()
        }
    }

    #[test]
    fn a_start_counts_an_attempt_and_keeps_fields_of_other_versions() {
        let mut fields = found("attempt=1;draining=1;start=5;percent=40;later=7");
        assert_eq!(
            fields.record().to_string(),
            "attempt=1;draining=1;start=5;percent=40;later=7"
        );
        fields.start = Some(9);
        assert_eq!(fields.record().to_string(), "attempt=2;start=9;later=7");
    }

    #[test]
    fn an_attempt_does_not_count_once_the_worker_was_asked_to_stop() {
        let mut fields = found("attempt=1");
        fields.draining = true;
        assert_eq!(fields.record().to_string(), "attempt=1", "nothing has started");
        fields.start = Some(9);
        assert_eq!(fields.record().to_string(), "attempt=1;draining=1;start=9");
    }

    #[test]
    fn an_attempt_does_not_count_while_it_is_held() {
        let mut fields = found("");
        fields.start = Some(9);
        fields.held = Some(Hold::new("s3:403", 10));
        assert_eq!(fields.record().to_string(), "start=9;held=s3:403@10");
        fields.held = None;
        assert_eq!(fields.record().to_string(), "attempt=1;start=9");
    }

    #[test]
    fn a_dead_letter_is_recorded_for_whoever_works_on_the_message_next() {
        let mut fields = found("attempt=1");
        fields.letter = true;
        assert_eq!(fields.record().to_string(), "attempt=1;letter=1");
        assert!(found("attempt=1;letter=1").record().letter);
    }

    #[test]
    fn nothing_is_written_over_a_record_that_was_not_read() {
        let mut fields = Fields {
            changed: true,
            ..Fields::default()
        };
        assert_eq!(fields.take(), None);
        assert!(fields.changed, "it is written later");
    }

    #[test]
    fn no_record_is_written_over_the_next_offset() {
        let mut fields = found("attempt=1");
        fields.changed = true;
        assert_eq!(fields.take(), Some(OffsetMetadata::attempt(1)));
        assert!(!fields.changed);
        fields.concluded = true;
        assert_eq!(fields.take(), None);
    }
}
