//! File system calls on threads that may block: on a volume whose server does not answer they take without end.

use super::StorageError;

/// Runs file system calls where they may block.
pub(super) async fn blocking<T: Send + 'static>(
    calls: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(calls).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends cancels such a task.
            Err(error) => Err(StorageError::File {
                disk: super::Disk::Shared,
                action: "use",
                place: "the file system".into(),
                source: std::io::Error::other(error),
            }),
        },
    }
}

/// Runs file system calls that nobody waits for: on a thread that may block, where there is a runtime.
pub(super) fn in_background(calls: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(calls)),
        Err(_) => calls(),
    }
}
