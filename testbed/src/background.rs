//! One Tokio runtime for everything that must outlive a single test.
//!
//! Each test has its own runtime, which drops its connections and tasks when it ends. Resources shared by
//! tests, and tasks that must continue while a test blocks, use this one.

use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("testbed")
            .enable_all()
            .build()
            .expect("a thread can be started")
    })
}

/// Starts a task that runs until it ends or is aborted, independent of the test's runtime.
pub(crate) fn start<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime().spawn(task)
}

/// Runs a future there and waits for it.
pub(crate) async fn run<T: Send + 'static>(
    task: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    start(task).await.context("a task of the testbed panicked")?
}

/// Runs blocking code there and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    runtime()
        .spawn_blocking(work)
        .await
        .context("a task of the testbed panicked")?
}
