//! Old tasks without an outcome, page by page.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::area::{Kind, task_of};
use super::{StoredTask, TaskStore};
use crate::storage::StorageError;

/// Name of the object with the object key of the last record that was looked at.
const CURSOR: &str = "overdue";

/// S3's limit of object keys is 1,024 bytes.
const MAX_CURSOR_BYTES: usize = 1024;

/// Outcomes that are looked up simultaneously.
const READS_IN_FLIGHT: usize = 8;

impl TaskStore {
    /// Of the next 1,000 records, the tasks that have no outcome and whose record was stored before `before`, in Unix
    /// seconds by the store's clock. After the last record it begins again. All programs continue at the same place,
    /// which is stored first: what a program does not finish is looked at in the next round.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_overdue(&self, before: u64) -> Result<Vec<StoredTask>, StorageError> {
        let (area, s3) = (&self.area, self.area.s3());
        let cursor = area.root(CURSOR);
        let after = match s3.read_small(&cursor, MAX_CURSOR_BYTES).await {
            Ok(key) => String::from_utf8(key.to_vec()).ok().filter(|key| !key.is_empty()),
            Err(StorageError::Missing { .. } | StorageError::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        let records = area.at(Kind::Tasks, "");
        let (records, next) = s3.page_after(&records, after.as_deref()).await?;
        s3.write_small(&cursor, next.unwrap_or_default(), None).await?;
        let old = records.into_iter().filter(|record| record.modified_at < before);
        let lookups = old.map(|record| self.unless_ended(record.key));
        let lookups = stream::iter(lookups).buffered(READS_IN_FLIGHT);
        let open: Vec<Option<String>> = lookups.try_collect().await?;
        let tasks = area.read_listed(open.into_iter().flatten().collect()).await?;
        Ok(tasks.into_iter().map(|(_, task)| task).collect())
    }

    /// The object key of a record whose task has no outcome.
    async fn unless_ended(&self, record: String) -> Result<Option<String>, StorageError> {
        let parts: Option<[&str; 2]> = self.area.parts(Kind::Tasks, &record);
        let Some(id) = parts.and_then(|[_, name]| task_of(name)) else {
            return Ok(None);
        };
        let outcome = self.area.of_task(Kind::Outcomes, &id);
        let has_ended = self.area.s3().head(&outcome).await?.is_some();
        Ok((!has_ended).then_some(record))
    }
}
