//! File system calls on blocking threads: on a volume whose server is unreachable they block indefinitely.

use super::StorageError;

/// Runs file system calls on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(
    calls: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(calls).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A blocking task is canceled only at the end of the runtime.
            Err(error) => Err(StorageError::File {
                disk: super::Disk::Shared,
                action: "use",
                location: "the file system".into(),
                source: std::io::Error::other(error),
            }),
        },
    }
}

/// Runs file system calls without waiting for them: on a blocking thread, or on this thread outside of a runtime.
pub(super) fn in_background(calls: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(calls)),
        Err(_) => calls(),
    }
}
