//! Removal of old objects, by the times at which the store last wrote them.
//!
//! Lists the area page by page; each 1,000 objects take one request, and each removed one takes another. Simultaneous
//! sweeps do no harm.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use separation_contract::message::TaskId;

use super::TaskStore;
use super::area::{ClientPart, Kind, task_of};
use crate::error::ErrorClass;
use crate::storage::{ListedObject, StorageError};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// Stems outlive the time that their task promises by an hour, because they are stored before its end.
const STEMS_MARGIN: u64 = HOUR;

/// A record outlives its stems by 30 days, so that clients learn that the stems expired.
const RECORDS_MARGIN: u64 = 30 * DAY;

/// Age of claims, which last for two minutes at most, and of open tasks that may be closed.
const LEFTOVERS_AGE: u64 = HOUR;

/// Age of uploads; a task fetches its upload within a day, or fails.
const UPLOADS_AGE: u64 = 2 * DAY;

/// Age of attempts to deliver a webhook; the attempts of a webhook take three days.
const DELIVERIES_AGE: u64 = 8 * DAY;

/// Age of tombstones: longer than Kafka retains the messages of a task, seven days by default.
const TOMBSTONES_AGE: u64 = 8 * DAY;

/// Age of erasures that their request did not finish.
const ERASURES_AGE: u64 = HOUR;

/// Removals in flight.
const REMOVALS_IN_FLIGHT: usize = 8;

/// Ages at which finished tasks are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age of finished stems, from the end of their task. Records are removed 30 days later. None keeps both.
    pub stems: Option<Duration>,
}

/// Counts of what [`TaskStore::remove_old`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Finished stems, peaks and previews.
    pub stems: usize,
    /// Tasks with record and outcome.
    pub records: usize,
    /// Claims, uploads, attempts to deliver, open tasks that had ended, and tombstones.
    pub leftovers: usize,
}

impl TaskStore {
    /// Removes what is older than `retention` at the time `now`, in Unix seconds by the store's clock, and what
    /// interrupted programs left. Finishes interrupted erasures.
    ///
    /// # Errors
    /// When the store fails; the next call continues.
    pub async fn remove_old(&self, now: u64, retention: Retention) -> Result<Removed, StorageError> {
        let before = |age: u64| now.saturating_sub(age);
        let mut removed = Removed::default();
        if let Some(age) = retention.stems {
            let stems = age.as_secs().saturating_add(STEMS_MARGIN);
            removed.stems = self.remove_each::<2>(Kind::Stems, before(stems)).await?;
            let ended_before = before(stems.saturating_add(RECORDS_MARGIN));
            let remove = |record| self.remove_task(record, ended_before);
            removed.records = self.for_each_old(Kind::Tasks, ended_before, remove).await?;
        }
        let claims = self.remove_each::<2>(Kind::Claims, before(LEFTOVERS_AGE));
        removed.leftovers += claims.await?;
        let uploads = self.remove_each::<2>(Kind::Uploads, before(UPLOADS_AGE));
        removed.leftovers += uploads.await?;
        let deliveries = self.remove_each::<1>(Kind::Deliveries, before(DELIVERIES_AGE));
        removed.leftovers += deliveries.await?;
        let close = |open| self.close_ended(open);
        removed.leftovers += self
            .for_each_old(Kind::Open, before(LEFTOVERS_AGE), close)
            .await?;
        let remove = |entry| self.remove_erased(entry, before(TOMBSTONES_AGE));
        removed.leftovers += self
            .for_each_old(Kind::Erased, before(ERASURES_AGE), remove)
            .await?;
        Ok(removed)
    }

    /// Removes the objects of a kind that were last written before `before` and whose object key has `N` parts after the
    /// kind; returns how many.
    async fn remove_each<const N: usize>(&self, kind: Kind, before: u64) -> Result<usize, StorageError> {
        let remove = |object: ListedObject| async move {
            if self.area.parts::<N>(kind, &object.key).is_none() {
                return Ok(0);
            }
            let address = self.area.listed(&object.key);
            self.area.s3().delete(&address).await.map(|()| 1)
        };
        self.for_each_old(kind, before, remove).await
    }

    /// Calls `remove` with each object of a kind that was last written before `before`, several simultaneously; returns
    /// the sum of its counts.
    async fn for_each_old<F>(
        &self,
        kind: Kind,
        before: u64,
        remove: impl Fn(ListedObject) -> F,
    ) -> Result<usize, StorageError>
    where
        F: Future<Output = Result<usize, StorageError>>,
    {
        let mut removed = 0;
        let mut pages = self.area.s3().pages(&self.area.at(kind, ""));
        while let Some(mut page) = pages.next_page().await? {
            page.retain(|object| object.modified_at < before);
            let removals = stream::iter(page.into_iter().map(&remove));
            let counts: Vec<usize> = removals
                .buffer_unordered(REMOVALS_IN_FLIGHT)
                .try_collect()
                .await?;
            removed += counts.into_iter().sum::<usize>();
        }
        Ok(removed)
    }

    /// Removes a task, unless it ended at `ended_before` or later.
    async fn remove_task(&self, record: ListedObject, ended_before: u64) -> Result<usize, StorageError> {
        let Some([_, name]) = self.area.parts(Kind::Tasks, &record.key) else {
            return Ok(0);
        };
        let Some(id) = task_of(name) else {
            return Ok(0);
        };
        match self.outcome(&id).await {
            Ok(Some(outcome)) if outcome.finished_at >= ended_before => return Ok(0),
            Ok(_) => {}
            Err(error) if error.class() == ErrorClass::Permanent => {
                tracing::warn!(task_uuid = %id, %error, "Keeping a task whose outcome is not valid");
                return Ok(0);
            }
            Err(error) => return Err(error),
        }
        let (area, s3) = (&self.area, self.area.s3());
        s3.delete(&area.of_task(Kind::Webhooks, &id)).await?;
        // The outcome before the record: one that is left would end a later task with the same ID.
        s3.delete(&area.of_task(Kind::Outcomes, &id)).await?;
        s3.delete(&area.listed(&record.key)).await?;
        Ok(1)
    }

    /// Closes an open task that has an outcome or no record: a program was killed before it did.
    async fn close_ended(&self, open: ListedObject) -> Result<usize, StorageError> {
        let (area, s3) = (&self.area, self.area.s3());
        let Some([client, id]) = area.parts(Kind::Open, &open.key) else {
            return Ok(0);
        };
        let Some(id) = task_id(id) else {
            return Ok(0);
        };
        let record = area.of_client(Kind::Tasks, &ClientPart::listed(client), &id, ".json");
        let has_ended = s3.head(&area.of_task(Kind::Outcomes, &id)).await?.is_some();
        if !has_ended && s3.head(&record).await?.is_some() {
            return Ok(0);
        }
        s3.delete(&area.listed(&open.key)).await.map(|()| 1)
    }

    /// Finishes an erasure. Removes its tombstone if it was finished before `finished_before`.
    async fn remove_erased(&self, entry: ListedObject, finished_before: u64) -> Result<usize, StorageError> {
        let (area, s3) = (&self.area, self.area.s3());
        let Some([client, id]) = area.parts(Kind::Erased, &entry.key) else {
            return Ok(0);
        };
        let Some(id) = task_id(id) else {
            return Ok(0);
        };
        let (is_finished, is_old) = (entry.size == 0, entry.modified_at < finished_before);
        if is_finished && !is_old {
            return Ok(0);
        }
        // Again for old ones: a program that stored something after the tombstone may have been killed.
        self.finish_erasure(&ClientPart::listed(client), &id).await?;
        if !is_finished {
            return Ok(0);
        }
        s3.delete(&area.of_task(Kind::Outcomes, &id)).await?;
        s3.delete(&area.listed(&entry.key)).await.map(|()| 1)
    }
}

fn task_id(text: &str) -> Option<TaskId> {
    TaskId::parse(text).ok()
}
