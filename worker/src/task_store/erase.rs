//! Erasure of tasks.

use bytes::Bytes;
use separation_contract::message::TaskId;

use super::area::{ClientPart, Kind};
use super::{EndState, StoredOutcome, StoredTask, TaskStore, VERSION};
use crate::error::ErrorClass;
use crate::storage::StorageError;

/// Content of an entry while its task is being erased. Afterwards it is empty, so that listings tell the two apart.
const UNFINISHED: &[u8] = b"unfinished";

impl TaskStore {
    /// Replaces a task's outcome by a tombstone, then removes all else of the task from the area. What another program
    /// stores afterwards, that program removes: it finds the tombstone. The mark of a task that is not queued stays, so
    /// that the program that takes it to the queue, or the next one if that is killed, removes the song. May be repeated.
    ///
    /// # Errors
    /// When the store fails. If the tombstone was stored, [`remove_old`](Self::remove_old) erases the rest.
    pub async fn erase(&self, client: &str, id: &TaskId, now: u64) -> Result<(), StorageError> {
        let client = ClientPart::of(client);
        let entry = self.area.of_client(Kind::Erased, &client, id, "");
        let unfinished = Bytes::from_static(UNFINISHED);
        self.area.s3().write_small(&entry, unfinished, None).await?;
        let tombstone = StoredOutcome {
            version: VERSION,
            id: id.clone(),
            state: EndState::Erased,
            finished_at: now,
            started_at: None,
            stems: Vec::new(),
            error: None,
        };
        let outcome = self.area.of_task(Kind::Outcomes, id);
        self.area.write(&outcome, &tombstone).await?;
        self.finish_erasure(&client, id).await
    }

    /// Removes what is left of an erased task.
    pub(super) async fn finish_erasure(&self, client: &ClientPart, id: &TaskId) -> Result<(), StorageError> {
        let (area, s3) = (&self.area, self.area.s3());
        let record = area.of_client(Kind::Tasks, client, id, ".json");
        let has_webhook = match area.read::<StoredTask>(&record).await {
            Ok(task) => task.is_some_and(|task| task.webhook_url.is_some()),
            Err(error) if error.class() == ErrorClass::Permanent => true,
            Err(error) => return Err(error),
        };
        if has_webhook {
            self.remove_deliveries(id).await?;
        }
        s3.delete(&area.of_task(Kind::Webhooks, id)).await?;
        s3.delete(&area.of_client(Kind::Open, client, id, "")).await?;
        s3.delete(&area.of_client(Kind::Uploads, client, id, "")).await?;
        self.remove_stems(id).await?;
        // After the deliveries: a repeated erasure reads in it whether some may be left.
        s3.delete(&record).await?;
        let entry = area.of_client(Kind::Erased, client, id, "");
        s3.write_small(&entry, Bytes::new(), None).await
    }

    async fn remove_deliveries(&self, id: &TaskId) -> Result<(), StorageError> {
        let mut pages = self.area.s3().pages(&self.area.at(Kind::Deliveries, ""));
        while let Some(page) = pages.next_page().await? {
            for object in page {
                if self.due(&object.key).is_some_and(|(_, of)| of == id.as_str()) {
                    self.area.s3().delete(&self.area.listed(&object.key)).await?;
                }
            }
        }
        Ok(())
    }
}
