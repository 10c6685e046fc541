//! Tries the operations of a role on an object that only this check uses.

use uuid::Uuid;

use super::{PROBE, S3};
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

/// Content of the object.
const CONTENT: &[u8] = b"separation-worker check";

impl S3 {
    /// Writes, reads, lists and deletes a small object below `prefix`.
    ///
    /// # Errors
    /// When the store refuses or fails; the object may be left if it cannot be deleted.
    pub(crate) async fn try_operations(&self, prefix: &ObjectAddress) -> Result<(), StorageError> {
        let probe = prefix.join(&format!("{PROBE}-{}", Uuid::new_v4()));
        self.write_small(&probe, CONTENT, None).await?;
        let used = async {
            self.read_small(&probe, CONTENT.len()).await?;
            self.list(&probe, 1).await
        };
        let used = used.await.map(drop);
        let deleted = self.delete(&probe).await;
        used.and(deleted)
    }
}
