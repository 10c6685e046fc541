//! The service loop: joins consumer, role and producer for one message at a time, and ends in order.
//!
//! Polls all the time. Side effects have one order: the role's own, publish, commit, clean up.

mod failure;
mod flow;
mod settle;
mod shutdown;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use flow::Ended;
pub use shutdown::Shutdown;

use crate::kafka::{Consumer, KafkaError, Polled, Producer};
use crate::settings::ConsumerSettings;
use crate::telemetry::Metrics;
use crate::work::Role;
use flow::Flow;
use settle::Settle;

/// How long messages may wait for a broker when the producer closes.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// How long leaving the group may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// How long leaving the group may take when everything is to end at once.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Activity {
    /// The model is not loaded, or the Kafka client not running.
    Starting,
    /// Waiting for a message.
    Idle,
    /// Working on a message.
    Busy {
        /// Its task, or its place where it names none.
        task: String,
    },
    /// Taking no further message; the running one goes on.
    Draining {
        /// The running task, if any.
        task: Option<String>,
    },
    /// The group is left.
    Stopped,
}

/// Why a service ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The Kafka client cannot go on.
    #[error("the Kafka client failed for good")]
    Kafka(#[source] KafkaError),
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// In order: nothing was running.
    Drained,
    /// At once, leaving a message for another worker.
    Aborted,
}

/// Everything that a role needs to serve messages.
pub struct Service<R> {
    /// What is done with messages.
    pub role: Arc<R>,
    /// Where they come from.
    pub consumer: Consumer,
    /// Where results go.
    pub producer: Producer,
    /// How messages are taken, and what becomes of those that fail.
    pub settings: ConsumerSettings,
    /// What is counted.
    pub metrics: Metrics,
    /// Says what the worker is doing.
    pub activity: watch::Sender<Activity>,
}

impl<R: Role> Service<R> {
    /// Serves messages until a shutdown is asked for, then ends in order.
    ///
    /// # Errors
    /// When the Kafka client fails for good.
    pub async fn run(self, shutdown: &Shutdown) -> Result<Exit, ServiceError> {
        self.activity.send_replace(Activity::Idle);
        let served = self.serve(shutdown).await;
        let limit = match served {
            Ok(Exit::Drained) => LEAVE_LIMIT,
            Ok(Exit::Aborted) | Err(_) => ABORT_LIMIT,
        };
        if matches!(served, Ok(Exit::Drained)) {
            tracing::info!("Final offset committed");
        }
        match tokio::time::timeout(limit, self.consumer.leave()).await {
            Ok(()) => tracing::info!("Kafka consumer closed"),
            Err(_) => tracing::warn!("Kafka consumer left without an answer from the brokers"),
        }
        let flush = if limit == LEAVE_LIMIT {
            FLUSH_LIMIT
        } else {
            ABORT_LIMIT
        };
        match self.producer.close(flush).await {
            Ok(()) => tracing::info!("Kafka producer closed"),
            Err(error) => tracing::warn!(%error, "Kafka producer closed with messages waiting"),
        }
        self.activity.send_replace(Activity::Stopped);
        served
    }

    async fn serve(&self, shutdown: &Shutdown) -> Result<Exit, ServiceError> {
        let mut settle = Settle::new(self.settings.settle);
        let mut changes = 0;
        while !shutdown.drain.is_cancelled() {
            let polled = tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                now_changed = self.consumer.assignment_changed(changes) => {
                    changes = now_changed;
                    settle.assignment_changed(Instant::now(), self.consumer.owns_any());
                    continue;
                }
                () = settle.wait() => {
                    settle.done();
                    self.consumer.open();
                    continue;
                }
                polled = self.consumer.poll() => polled,
            };
            match polled {
                Polled::Message(message) => {
                    let Some(lost) = self.consumer.begin(&message) else {
                        continue;
                    };
                    let flow = Flow::new(self, message, lost);
                    match self.accompany(flow, shutdown).await? {
                        Some(_) => {}
                        None => return Ok(Exit::Aborted),
                    }
                    if !shutdown.drain.is_cancelled() {
                        self.activity.send_replace(Activity::Idle);
                        self.consumer.open();
                    }
                }
                Polled::EndOfPartition(_) => {}
                Polled::Trouble(error) => tracing::warn!(%error, "Kafka trouble"),
                Polled::Fatal(error) => return Err(ServiceError::Kafka(error)),
            }
        }
        self.consumer.close_intake();
        self.activity.send_replace(Activity::Draining { task: None });
        tracing::info!("Shutdown requested, stopping message consumption");
        Ok(Exit::Drained)
    }

    /// Polls while a message is worked on. Gives nothing if the work was aborted.
    async fn accompany(&self, flow: Flow<'_, R>, shutdown: &Shutdown) -> Result<Option<Ended>, ServiceError> {
        let task = flow.name();
        let begin = Instant::now();
        self.activity.send_replace(Activity::Busy { task: task.clone() });
        self.metrics.message_begun(unix_seconds());
        let mut work = pin!(flow.run());
        let mut draining = false;
        let ended = loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.abort.cancelled() => break None,
                ended = &mut work => break Some(ended?),
                () = shutdown.drain.cancelled(), if !draining => {
                    draining = true;
                    tracing::info!(task, "Finishing the running task before the shutdown");
                    self.activity.send_replace(Activity::Draining { task: Some(task.clone()) });
                    continue;
                }
                polled = self.consumer.poll() => polled,
            };
            match polled {
                // It came before its partition had a queue of its own.
                Polled::Message(message) => {
                    if let Err(error) = self.consumer.put_back(&message) {
                        tracing::debug!(%error, place = %message.place, "Could not put a message back");
                    }
                }
                Polled::EndOfPartition(_) => {}
                Polled::Trouble(error) => tracing::warn!(%error, "Kafka trouble"),
                Polled::Fatal(error) => return Err(ServiceError::Kafka(error)),
            }
        };
        let outcome = ended.map_or("aborted", Ended::word);
        self.metrics.message_ended(outcome, begin.elapsed());
        if ended.is_none() {
            tracing::warn!(task, "Aborted; the task is left uncommitted for another worker");
        }
        self.consumer.end();
        Ok(ended)
    }
}

/// The time of day, for people who read metrics.
fn unix_seconds() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
