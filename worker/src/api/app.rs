//! The API's shared state.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::environment as env;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::ApiSettings;
use super::intake::Intake;
use super::slots::Slots;
use super::traits::{TaskFiles, TaskQueue};
use super::v1::background;
use super::v1::deliveries::Deliverer;
use super::v1::fetching::Fetcher;
use super::v1::overdue::Overdue;
use super::v1::problem::Problem;
use super::v1::queueing::{Queuer, QueuerParts};
use super::v1::state::V1;
use crate::clock::unix_time;
use crate::outbound::Client;
use crate::task_store::TaskStore;
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
    v1: Option<V1>,
    unfinished: TaskTracker,
}

impl App {
    /// Assembles the API, without the HTTP API v1.
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
            v1: None,
            unfinished,
        }
    }

    /// The same API with the HTTP API v1, whose tasks `store` contains.
    #[must_use]
    pub fn with_v1(mut self, store: TaskStore) -> Self {
        let replica = Uuid::new_v4().to_string();
        let settings = Arc::new(self.settings.v1.clone());
        let queuer = Queuer::new(QueuerParts {
            store: store.clone(),
            queue: Arc::clone(&self.queue),
            files: Arc::clone(&self.files),
            fetcher: Fetcher {
                store: store.clone(),
                files: Arc::clone(&self.files),
                outbound: self.outbound.clone(),
                limits: self.settings.input,
                max_input_seconds: settings.max_input_seconds,
            },
            slots: Slots::new(self.settings.max_concurrent_inputs, &self.settings.clients),
            replica: replica.clone(),
            unfinished: self.unfinished.clone(),
        });
        let deliverer = Deliverer::new(
            store.clone(),
            Arc::clone(&self.settings.clients),
            self.outbound.clone(),
            Arc::clone(&settings),
            replica.clone(),
            Arc::new(|| unix_time().as_secs()),
            self.metrics.clone(),
        );
        let overdue = Overdue {
            store: store.clone(),
            queue: Arc::clone(&self.queue),
            files: Arc::clone(&self.files),
            replica: replica.clone(),
        };
        self.v1 = Some(V1::new(store, settings, replica, queuer, deliverer, overdue));
        self
    }

    /// The HTTP API v1.
    ///
    /// # Errors
    /// 503 without a bucket, in which it keeps its tasks.
    pub(super) fn v1(&self) -> Result<&V1, Problem> {
        let unset = || {
            let detail = format!(
                "this API has no store of tasks; fix: set {} to the bucket of finished stems",
                env::S3_BUCKET_NAME
            );
            Problem::unavailable(detail)
        };
        self.v1.as_ref().ok_or_else(unset)
    }

    /// Runs the background work of the HTTP API v1, if it is there, until `stop`.
    pub(super) async fn run_background(&self, stop: CancellationToken) {
        if let Some(v1) = &self.v1 {
            background::run(v1, &self.unfinished, stop).await;
        }
    }

    /// Runs work to its end, also if the future that waits for it is dropped.
    pub(super) fn to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.unfinished.spawn(work)
    }

    /// Waits until every started request, staging, queueing, delivery and removal has ended.
    pub(super) async fn finish(&self) {
        self.unfinished.close();
        self.unfinished.wait().await;
    }

    pub(super) async fn close_queue(&self, limit: Duration) {
        self.queue.close(limit).await;
    }
}
