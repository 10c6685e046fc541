//! The tasks of the HTTP API v1, as private objects in the bucket of finished stems, below `v1/` and the prefix of stems:
//!
//! | object key | content |
//! |---|---|
//! | `tasks/{client}/{id}.json` | the [record](StoredTask): created once, never changed |
//! | `outcomes/{id}.json` | the [outcome](StoredOutcome): created once, replaced only by an erasure |
//! | `stems/{id}/{file}` | finished stems, peaks and previews |
//! | `incoming/{client}/{id}`, `….staged` | a task that is [not queued yet](Incoming) |
//! | `open/{client}/{id}` | a task that counts for its client's limit |
//! | `uploads/{client}/{id}` | an uploaded song |
//! | `claims/{window}/{name}` | the holder of a claim |
//! | `deliveries/{due}-{id}.json` | an attempt to make of [delivering a webhook](Delivery) |
//! | `webhooks/{id}.json` | the [state of a webhook's delivery](WebhookReport) |
//! | `erased/{client}/{id}` | an erased task, whose tombstone is its outcome |
//! | `overdue` | the record that the search for tasks without a worker continues after |
//!
//! A task ends by the first outcome that is created, whoever creates it: callers store the webhook's delivery, then the
//! outcome, then close the open task, so that a process that is killed in between loses nothing. Repeats only reads over a
//! broken connection, once: errors have a class, and the callers know their deadlines.

mod area;
mod claims;
mod delivery;
mod erase;
mod files;
mod incoming;
mod outcome;
mod overdue;
mod record;
mod sweep;
mod version;
mod webhook_list;

use bytes::Bytes;
use separation_contract::message::TaskId;

pub use crate::storage::Created;
pub use delivery::{Delivery, DeliveryState, WebhookReport};
pub use files::StoredFile;
pub(crate) use files::content_disposition;
pub use incoming::{Incoming, IncomingCursor};
pub use outcome::{EndState, StoredError, StoredOutcome, StoredStem};
pub use record::{InputSource, StoredInput, StoredTask};
pub use sweep::{Removed, Retention};
pub use version::VERSION;
pub use webhook_list::WebhookPages;

use self::area::{Area, ClientPart, Kind};
use crate::settings::{ObjectAddress, S3Settings, SettingError};
use crate::storage::{S3, StorageError};

/// Name of the object that shows whether the store has conditional writes. It is never deleted: another replica may be
/// between its two creates.
const PROBE: &str = "conditional-writes";

/// The tasks of v1; cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskStore {
    area: Area,
}

impl TaskStore {
    /// The tasks in the bucket of `settings`.
    ///
    /// # Errors
    /// When no bucket is set.
    pub fn new(s3: S3, settings: &S3Settings) -> Result<Self, SettingError> {
        Ok(Self {
            area: Area::new(s3, settings)?,
        })
    }

    /// Whether the store refuses to create an object that exists. Without, [`Created::New`] does not mean that a task, an
    /// outcome or a claim is the first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_conditional_writes(&self) -> Result<bool, StorageError> {
        let probe = self.area.root(PROBE);
        for _ in 0..2 {
            let created = self.area.s3().create_conditionally(&probe, Bytes::new(), None);
            match created.await {
                Ok(Created::Exists) => return Ok(true),
                Ok(Created::New) => {}
                Err(error) if error.is_not_implemented() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Stores the record of a task, unless it exists. [`Created::New`] also if the same record exists: then an earlier
    /// call stored it, and its response was lost.
    ///
    /// # Errors
    /// When the store fails; the record may nevertheless be stored.
    pub async fn create_task(&self, task: &StoredTask) -> Result<Created, StorageError> {
        let address = self.record(&task.client, &task.id);
        self.area.create(&address, task).await
    }

    /// The record of a client's task; none if it does not exist.
    ///
    /// # Errors
    /// When the store fails or the record is not valid.
    pub async fn task(&self, client: &str, id: &TaskId) -> Result<Option<StoredTask>, StorageError> {
        self.area.read(&self.record(client, id)).await
    }

    /// Deletes the record of a task that was created after a task with the same ID was erased.
    ///
    /// # Errors
    /// When the store fails. A missing record is no error.
    pub async fn delete_task(&self, client: &str, id: &TaskId) -> Result<(), StorageError> {
        self.area.s3().delete(&self.record(client, id)).await
    }

    /// Stores the outcome of a task, unless it has one, which may be a tombstone. [`Created::New`] also if it has the same
    /// outcome: then an earlier call stored it, and its response was lost.
    ///
    /// # Errors
    /// When the store fails; the outcome may nevertheless be stored.
    pub async fn create_outcome(&self, outcome: &StoredOutcome) -> Result<Created, StorageError> {
        let address = self.area.of_task(Kind::Outcomes, &outcome.id);
        self.area.create(&address, outcome).await
    }

    /// The outcome of a task; none while it is queued or running.
    ///
    /// # Errors
    /// When the store fails or the outcome is not valid.
    pub async fn outcome(&self, id: &TaskId) -> Result<Option<StoredOutcome>, StorageError> {
        self.area.read(&self.area.of_task(Kind::Outcomes, id)).await
    }

    fn record(&self, client: &str, id: &TaskId) -> ObjectAddress {
        self.area
            .of_client(Kind::Tasks, &ClientPart::of(client), id, ".json")
    }
}
