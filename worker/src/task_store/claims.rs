//! Claims of replicas on work, and the counts of clients' open tasks.
//!
//! A claim lasts for a window of a minute, by the clock of its holder, or until its holder releases it. Replicas whose
//! clocks differ may hold one claim simultaneously, as may all replicas with a store without conditional writes: work under
//! a claim must be repeatable.

use bytes::Bytes;
use separation_contract::message::TaskId;

use super::TaskStore;
use super::area::{ClientPart, Kind};
use crate::settings::ObjectAddress;
use crate::storage::{Created, StorageError};

/// Longest name of a holder that is compared.
const MAX_HOLDER_BYTES: usize = 1024;

/// Length of a window.
pub(super) const WINDOW_SECONDS: u64 = 60;

impl TaskStore {
    /// Claims `name`, which consists of letters, digits, `-`, `_` and `.`, until the end of the window that `now`, in Unix
    /// seconds, is in. Returns whether `holder` holds it, also if it did before.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn claim(&self, name: &str, holder: &str, now: u64) -> Result<bool, StorageError> {
        self.claim_window(name, holder, now / WINDOW_SECONDS).await
    }

    /// Claims `name` for the window after that of `now`. Call it in the last 20 seconds of a window: earlier, it would
    /// hold up other replicas after this one ends.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew(&self, name: &str, holder: &str, now: u64) -> Result<bool, StorageError> {
        self.claim_window(name, holder, now / WINDOW_SECONDS + 1).await
    }

    /// Releases `name` for the window of `now` and the next one, if `holder` holds it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(&self, name: &str, holder: &str, now: u64) -> Result<(), StorageError> {
        let window = now / WINDOW_SECONDS;
        // The later one first: another holder that claims the earlier one can renew it.
        for window in [window + 1, window] {
            let address = self.claim_address(name, window);
            match self.area.s3().read_small(&address, MAX_HOLDER_BYTES).await {
                Ok(found) if found == holder.as_bytes() => self.area.s3().delete(&address).await?,
                Ok(_) | Err(StorageError::Missing { .. } | StorageError::TooLarge { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn claim_address(&self, name: &str, window: u64) -> ObjectAddress {
        self.area.at(Kind::Claims, &format!("{window:010}/{name}"))
    }

    async fn claim_window(&self, name: &str, holder: &str, window: u64) -> Result<bool, StorageError> {
        let address = self.claim_address(name, window);
        let holder = Bytes::copy_from_slice(holder.as_bytes());
        let created = self.area.create_bytes(&address, holder, None).await?;
        Ok(created == Created::New)
    }

    /// Counts a task of a client with a limit as open.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_open(&self, client: &str, id: &TaskId) -> Result<(), StorageError> {
        let client = ClientPart::of(client);
        let address = self.area.of_client(Kind::Open, &client, id, "");
        self.area.s3().write_small(&address, Bytes::new(), None).await
    }

    /// Counts a task as open no more.
    ///
    /// # Errors
    /// When the store fails. A task that is not open is no error.
    pub async fn close_open(&self, client: &str, id: &TaskId) -> Result<(), StorageError> {
        let client = ClientPart::of(client);
        let address = self.area.of_client(Kind::Open, &client, id, "");
        self.area.s3().delete(&address).await
    }

    /// Number of the client's open tasks, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_open(&self, client: &str, limit: usize) -> Result<usize, StorageError> {
        let prefix = self.area.client_prefix(Kind::Open, &ClientPart::of(client));
        Ok(self.area.s3().list(&prefix, limit).await?.len())
    }
}
