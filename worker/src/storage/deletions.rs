//! Counts the deletions of a sweep, which continues after failures.

use super::StorageError;

/// The deletions of a sweep.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    deleted: usize,
    failed: usize,
    first_failure: Option<StorageError>,
}

impl Deletions {
    /// Adds the deletions of one object and of those that belong to it.
    pub(crate) fn record(&mut self, deleted: Result<usize, StorageError>) {
        match deleted {
            Ok(count) => self.deleted += count,
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert(error);
            }
        }
    }

    /// The number of deleted objects. Logs the failures in one line, because all may have one cause.
    pub(crate) fn finish(self) -> usize {
        if let Some(error) = self.first_failure {
            let problem = crate::work::chain(&error);
            tracing::warn!(
                failed = self.failed,
                error = problem,
                "Cannot delete all old objects; the next sweep tries again"
            );
        }
        self.deleted
    }
}
