//! Tasks that are not queued yet.
//!
//! Each has a mark, an object without content: its object key contains all that is needed to take the task up, so that a
//! listing needs no further requests.

use bytes::Bytes;
use separation_contract::message::TaskId;

use super::area::{ClientPart, Kind};
use super::{InputSource, StoredTask, TaskStore};
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

/// End of the object keys of tasks whose song is staged. No ID that the API assigns has it.
const STAGED: &str = ".staged";

/// A task that is not queued yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The task.
    pub id: TaskId,
    /// Name of its client.
    pub client: String,
    /// Whether its song is staged; otherwise it is to be fetched.
    pub is_staged: bool,
    /// When it was accepted, Unix seconds: by the store's clock if it was listed, and then `u64::MAX` if the store does
    /// not report it.
    pub accepted_at: u64,
}

/// A place in the list of tasks that are not queued yet; at first its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncomingCursor(Option<String>);

impl Incoming {
    /// The mark of a task.
    pub fn of(task: &StoredTask) -> Self {
        Self {
            id: task.id.clone(),
            client: task.client.clone(),
            is_staged: task.input.source == InputSource::File,
            accepted_at: task.created_at,
        }
    }
}

impl TaskStore {
    /// Stores that a task is to be queued. Call it before the record is stored: then no accepted task is lost.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_incoming(&self, incoming: &Incoming) -> Result<(), StorageError> {
        let address = self.mark(incoming);
        self.area.write_bytes(&address, Bytes::new(), None).await
    }

    /// The next tasks that are not queued yet, at most 1,000; after the last ones it begins again. Some may have no
    /// record: their request is being accepted, or was interrupted, or they were erased.
    ///
    /// # Errors
    /// When the store fails; the next call continues at the same place.
    pub async fn incoming(&self, cursor: &mut IncomingCursor) -> Result<Vec<Incoming>, StorageError> {
        let all = self.area.at(Kind::Incoming, "");
        let (marks, next) = self.area.s3().page_after(&all, cursor.0.as_deref()).await?;
        cursor.0 = next;
        let marks = marks.into_iter().filter_map(|mark| {
            let [client, name] = self.area.parts(Kind::Incoming, &mark.key)?;
            let id = name.strip_suffix(STAGED);
            Some(Incoming {
                id: TaskId::parse(id.unwrap_or(name)).ok()?,
                client: ClientPart::listed(client).name()?,
                is_staged: id.is_some(),
                accepted_at: mark.modified_at,
            })
        });
        Ok(marks.collect())
    }

    /// Whether a task is in [`incoming`](Self::incoming).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_incoming(&self, incoming: &Incoming) -> Result<bool, StorageError> {
        Ok(self.area.s3().head(&self.mark(incoming)).await?.is_some())
    }

    /// Removes a task from [`incoming`](Self::incoming).
    ///
    /// # Errors
    /// When the store fails. A task that is not there is no error.
    pub async fn delete_incoming(&self, incoming: &Incoming) -> Result<(), StorageError> {
        self.area.s3().delete(&self.mark(incoming)).await
    }

    fn mark(&self, incoming: &Incoming) -> ObjectAddress {
        let client = ClientPart::of(&incoming.client);
        let ending = if incoming.is_staged { STAGED } else { "" };
        self.area.of_client(Kind::Incoming, &client, &incoming.id, ending)
    }
}
