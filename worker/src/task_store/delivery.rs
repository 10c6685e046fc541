//! Webhooks to deliver, and the state of their delivery.

use separation_contract::message::TaskId;
use serde::{Deserialize, Serialize};

use super::TaskStore;
use super::area::Kind;
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

/// A webhook to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The task that it reports.
    pub id: TaskId,
    /// Name of the task's client, whose secrets sign it.
    pub client: String,
    /// Address of the receiver.
    pub url: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When the first attempt was scheduled, Unix seconds.
    pub scheduled_at: u64,
}

/// State of a webhook's delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookReport {
    /// The state.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// When the last attempt began, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<u64>,
    /// Status of the receiver's last response, if it responded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Whether a webhook was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not yet.
    Pending,
    /// The receiver accepted it.
    Delivered,
    /// All attempts failed, or the receiver refused it.
    Failed,
}

impl TaskStore {
    /// Schedules an attempt to deliver a webhook. `due` is in Unix seconds. An attempt may be scheduled for a task without
    /// outcome, which is about to get one, or for a task that is erased.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn schedule_delivery(&self, due: u64, delivery: &Delivery) -> Result<(), StorageError> {
        let address = self.delivery(due, &delivery.id);
        self.area.write(&address, delivery).await
    }

    /// The attempts that are due, at most `limit`, the earliest first, each with its time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn due_deliveries(&self, now: u64, limit: usize) -> Result<Vec<(u64, Delivery)>, StorageError> {
        let all = self.area.at(Kind::Deliveries, "");
        let listed = self.area.s3().list(&all, limit).await?;
        let keys = listed.into_iter().map(|object| object.key);
        let due = keys.filter(|key| self.due(key).is_some_and(|(due, _)| due <= now));
        let deliveries = self.area.read_listed(due.collect()).await?;
        Ok(deliveries
            .into_iter()
            .filter_map(|(key, delivery)| Some((self.due(&key)?.0, delivery)))
            .collect())
    }

    /// Removes an attempt that was made, or is not to be made.
    ///
    /// # Errors
    /// When the store fails. A missing one is no error.
    pub async fn remove_delivery(&self, due: u64, id: &TaskId) -> Result<(), StorageError> {
        self.area.s3().delete(&self.delivery(due, id)).await
    }

    /// State of the delivery of a task's webhook; none before the first attempt.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn webhook_report(&self, id: &TaskId) -> Result<Option<WebhookReport>, StorageError> {
        self.area.read(&self.area.of_task(Kind::Webhooks, id)).await
    }

    /// Replaces the state of the delivery of a task's webhook.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_webhook_report(&self, id: &TaskId, report: &WebhookReport) -> Result<(), StorageError> {
        let address = self.area.of_task(Kind::Webhooks, id);
        self.area.write(&address, report).await
    }

    fn delivery(&self, due: u64, id: &TaskId) -> ObjectAddress {
        // Ten digits until the year 2286, so that the order of object keys is that of time.
        self.area.at(Kind::Deliveries, &format!("{due:010}-{id}.json"))
    }

    /// The time of an attempt and the task's ID, as text, of a listed object.
    pub(super) fn due<'k>(&self, key: &'k str) -> Option<(u64, &'k str)> {
        let [name] = self.area.parts(Kind::Deliveries, key)?;
        let (due, id) = name.strip_suffix(".json")?.split_once('-')?;
        Some((due.parse().ok()?, id))
    }
}
