//! Listings of webhooks, for the command line.

use std::collections::{BTreeMap, BTreeSet};

use separation_contract::message::TaskId;

use super::area::{Area, Kind, task_of};
use super::{StoredTask, TaskStore, WebhookReport};
use crate::storage::{Pages, StorageError};

/// The states of all webhooks, which are read page by page.
#[derive(Debug)]
pub struct WebhookPages {
    area: Area,
    pages: Pages,
}

impl WebhookPages {
    /// The next webhooks, in the order of their tasks' IDs; none at the end.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_page(&mut self) -> Result<Option<Vec<(TaskId, WebhookReport)>>, StorageError> {
        let Some(page) = self.pages.next_page().await? else {
            return Ok(None);
        };
        let keys = page.into_iter().map(|object| object.key).collect();
        let reports = self.area.read_listed(keys).await?.into_iter();
        let reports = reports.filter_map(|(key, report)| {
            let [name] = self.area.parts(Kind::Webhooks, &key)?;
            Some((task_of(name)?, report))
        });
        Ok(Some(reports.collect()))
    }
}

impl TaskStore {
    /// The states of all webhooks, except of those that no attempt was made for.
    pub fn webhooks(&self) -> WebhookPages {
        WebhookPages {
            area: self.area.clone(),
            pages: self.area.s3().pages(&self.area.at(Kind::Webhooks, "")),
        }
    }

    /// The time of the next attempt, in Unix seconds, of each webhook that is to be delivered.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_attempts(&self) -> Result<BTreeMap<TaskId, u64>, StorageError> {
        let mut attempts = BTreeMap::new();
        let mut pages = self.area.s3().pages(&self.area.at(Kind::Deliveries, ""));
        while let Some(page) = pages.next_page().await? {
            for object in page {
                let due = self.due(&object.key);
                if let Some((due, Ok(task))) = due.map(|(due, id)| (due, TaskId::parse(id))) {
                    // In the order of time.
                    attempts.entry(task).or_insert(due);
                }
            }
        }
        Ok(attempts)
    }

    /// The records of these tasks, whichever clients they belong to; tasks without a record are left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_tasks(&self, ids: &BTreeSet<TaskId>) -> Result<Vec<StoredTask>, StorageError> {
        let mut found = Vec::new();
        let mut pages = self.area.s3().pages(&self.area.at(Kind::Tasks, ""));
        while found.len() < ids.len() {
            let Some(page) = pages.next_page().await? else {
                break;
            };
            let keys = page.into_iter().map(|object| object.key);
            let keys = keys.filter(|key| {
                let parts: Option<[&str; 2]> = self.area.parts(Kind::Tasks, key);
                let task = parts.and_then(|[_, name]| task_of(name));
                task.is_some_and(|task| ids.contains(&task))
            });
            let records = self.area.read_listed(keys.collect()).await?;
            found.extend(records.into_iter().map(|(_, task)| task));
        }
        Ok(found)
    }
}
