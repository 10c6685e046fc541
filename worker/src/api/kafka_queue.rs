//! The queue of tasks in Kafka.

use std::time::Duration;

use futures_util::future::BoxFuture;
use separation_contract::message::Task;
use separation_contract::offset_metadata::OffsetMetadata;
use tokio::sync::Semaphore;

use super::ApiSettings;
use super::borders::{QueueError, QueueProgress, TaskQueue};
use crate::kafka::{Gate, GroupProgress, Header, KafkaError, Place, Producer, Refusal};
use crate::settings::KafkaSettings;
use crate::telemetry::TraceContext;
use crate::work::WorkError;

/// How long the brokers may take to say that they are there, or how far processors are.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// How many callers may ask at once how far processors are: each holds a thread, of 512 in the process.
const MAX_QUESTIONS: usize = 8;

/// The queue of tasks in Kafka.
pub struct KafkaQueue {
    producer: Producer,
    progress: GroupProgress,
    questions: Semaphore,
    topic: String,
}

impl KafkaQueue {
    /// The queue that `settings` name. Connects when first used.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(kafka: &KafkaSettings, settings: &ApiSettings, gate: Gate) -> Result<Self, KafkaError> {
        let (group, topic) = (&settings.processor_group, &settings.task_topic);
        Ok(Self {
            producer: Producer::watched(kafka, gate)?,
            progress: GroupProgress::new(kafka, group, topic)?,
            questions: Semaphore::new(MAX_QUESTIONS),
            topic: topic.clone(),
        })
    }

    /// Waits until the brokers have refused this process for too long.
    pub async fn refused_for_good(&self) -> Refusal {
        self.producer.refused_for_good(&self.topic).await
    }
}

impl TaskQueue for KafkaQueue {
    fn reachable(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.producer.reaches(&self.topic, ASK_LIMIT))
    }

    fn publish<'a>(
        &'a self,
        task: &'a Task,
        trace: TraceContext,
    ) -> BoxFuture<'a, Result<Place, QueueError>> {
        Box::pin(async move {
            let headers = [Header {
                name: TraceContext::HEADER,
                value: trace.to_string(),
            }];
            let (key, value) = (task.task_uuid.as_str().as_bytes(), task.to_json());
            let published = self
                .producer
                .publish(&self.topic, Some(key), value.as_bytes(), &headers);
            published.await.map_err(|error| {
                let queue_error = match error.may_be_stored() {
                    true => QueueError::Unknown,
                    false => QueueError::NotQueued,
                };
                queue_error(WorkError::new(error.class(), error))
            })
        })
    }

    fn progress(&self, partition: i32) -> BoxFuture<'_, Option<QueueProgress>> {
        Box::pin(async move {
            let asked = async {
                let _turn = self.questions.acquire().await.ok()?;
                match self.progress.of(partition, ASK_LIMIT).await {
                    Ok(progress) => Some(progress),
                    Err(error) => {
                        tracing::debug!(partition, %error, "Cannot tell how far processors are");
                        None
                    }
                }
            };
            let progress = tokio::time::timeout(ASK_LIMIT, asked).await.ok()??;
            let begun = |record: &OffsetMetadata| record.start.is_some() || record.attempt > 0;
            Some(QueueProgress {
                begun: progress.as_ref().is_some_and(|progress| begun(&progress.record)),
                committed: progress.map(|progress| progress.committed),
            })
        })
    }

    fn close(&self, limit: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.producer.clone().close(limit).await {
                Ok(()) => tracing::info!("Kafka producer closed"),
                Err(error) => {
                    tracing::error!(%error, "Kafka producer closed with messages that no broker took");
                }
            }
        })
    }
}
