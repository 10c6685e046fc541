//! The API's shared state.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::ApiSettings;
use super::intake::Intake;
use super::traits::{TaskFiles, TaskQueue};
use crate::outbound::Client;
use crate::telemetry::ApiMetrics;

/// The API's shared state; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(super) settings: Arc<ApiSettings>,
    pub(super) outbound: Client,
    pub(super) queue: Arc<dyn TaskQueue>,
    pub(super) files: Arc<dyn TaskFiles>,
    pub(super) intake: Intake,
    pub(super) metrics: ApiMetrics,
    unfinished: TaskTracker,
}

impl App {
    /// Assembles the API.
    pub fn new(
        settings: ApiSettings,
        outbound: Client,
        queue: Arc<dyn TaskQueue>,
        files: Arc<dyn TaskFiles>,
        metrics: ApiMetrics,
    ) -> Self {
        let unfinished = TaskTracker::new();
        let intake = Intake::new(
            Arc::clone(&queue),
            Arc::clone(&files),
            &settings,
            unfinished.clone(),
        );
        Self {
            settings: Arc::new(settings),
            outbound,
            queue,
            files,
            intake,
            metrics,
            unfinished,
        }
    }

    /// Waits until every started staging, queueing and removal has ended.
    pub(super) async fn finish(&self) {
        self.unfinished.close();
        self.unfinished.wait().await;
    }

    pub(super) async fn close_queue(&self, limit: Duration) {
        self.queue.close(limit).await;
    }
}
