//! The service loop: runs consumer, role and producer for one message at a time, and shuts down gracefully.
//!
//! Polls continuously. Side effects have one order: the role's own, publish, commit, clean up.

mod drain;
mod failure;
mod flow;
mod markers;
mod outcome;
mod record;
mod run;
mod shutdown;
mod start_delay;

use std::sync::Arc;

use tokio::sync::watch;

pub use outcome::MessageOutcome;
pub use shutdown::Shutdown;

use crate::kafka::{Consumer, KafkaError, Producer, Refusal};
use crate::settings::ConsumerSettings;
use crate::telemetry::Metrics;

/// State of a worker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Activity {
    /// The model is not loaded, or the Kafka client is not running.
    Starting,
    /// Waiting for a message.
    Idle,
    /// Processing a message.
    Busy {
        /// Its task id, or its position if it has none.
        task: String,
    },
    /// Accepting no further message; the running one is finished.
    Draining {
        /// The running task, if any.
        task: Option<String>,
    },
    /// The worker has left the group.
    Stopped,
}

/// Why a service ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The Kafka client cannot continue.
    #[error("the Kafka client failed permanently")]
    Kafka(#[source] KafkaError),
    /// The brokers accepted this process and have refused it for too long.
    #[error(transparent)]
    Refused(Refusal),
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Gracefully: no message was running.
    Drained,
    /// Gracefully, leaving the running message for another worker.
    Released,
    /// Immediately, leaving a message for another worker.
    Aborted,
}

/// A role with its Kafka clients and settings.
pub struct Service<R> {
    /// Processes the messages.
    pub role: Arc<R>,
    /// Delivers the messages.
    pub consumer: Consumer,
    /// Publishes results, requeued messages and dead letters.
    pub producer: Producer,
    /// Topics, timeouts and the failure policy.
    pub settings: ConsumerSettings,
    /// The worker's metrics.
    pub metrics: Metrics,
    /// Publishes the worker's state.
    pub activity: watch::Sender<Activity>,
}
