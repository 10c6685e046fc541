//! The task queue in Kafka.

use std::time::Duration;

use futures_util::future::BoxFuture;
use separation_contract::message::Task;
use tokio::sync::Semaphore;

use super::ApiSettings;
use super::traits::{QueueError, QueueProgress, TaskQueue};
use crate::kafka::{
    Gate, GroupProgress, Header, PartitionProgress, Placement, PlacementKind, Position, Producer,
    PublishError, Refusal,
};
use crate::settings::KafkaSettings;
use crate::telemetry::{ApiMetrics, TraceContext};
use crate::work::WorkError;

/// Time limit for checking that the brokers are reachable, and for reading the processors' committed offset.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Maximum number of simultaneous reads of the processors' offsets: they share one connection to the coordinator.
const MAX_OFFSET_READS: usize = 8;

/// The task queue in Kafka.
pub struct KafkaQueue {
    producer: Producer,
    progress: GroupProgress,
    offset_reads: Semaphore,
    /// None if every task is published by the hash of its message key.
    placement: Option<Placement>,
    topic: String,
    metrics: ApiMetrics,
}

impl KafkaQueue {
    /// The queue for the topic and group of `settings`. Connects on first use.
    ///
    /// # Errors
    /// When the settings are invalid, or one of their files cannot be read.
    pub fn new(kafka: &KafkaSettings, settings: &ApiSettings, metrics: ApiMetrics) -> anyhow::Result<Self> {
        let (group, topic) = (&settings.processor_group, &settings.task_topic);
        let progress = GroupProgress::new(kafka, group, topic)?;
        let gate = Gate::new(metrics.holds().clone());
        Ok(Self {
            producer: Producer::with_gate(kafka, gate)?,
            placement: settings.places_on_idle().then(|| Placement::new(&progress)),
            progress,
            offset_reads: Semaphore::new(MAX_OFFSET_READS),
            topic: topic.clone(),
            metrics,
        })
    }

    /// Completes once the brokers have refused this process for longer than the limit.
    pub async fn refused_too_long(&self) -> Refusal {
        self.producer.refused_too_long(&self.topic).await
    }
}

impl TaskQueue for KafkaQueue {
    fn reachable(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.producer.topic_reachable(&self.topic, READ_LIMIT))
    }

    fn place(&self) -> BoxFuture<'_, Option<i32>> {
        Box::pin(async move {
            let (partition, kind) = match &self.placement {
                Some(placement) => placement.place().await,
                None => (None, PlacementKind::Hashed),
            };
            self.metrics.placement(kind.name());
            partition
        })
    }

    fn publish<'a>(
        &'a self,
        task: &'a Task,
        partition: Option<i32>,
        trace: TraceContext,
    ) -> BoxFuture<'a, Result<Position, QueueError>> {
        Box::pin(async move {
            let headers = [Header {
                name: TraceContext::HEADER,
                value: trace.to_string(),
            }];
            let (key, value) = (task.task_uuid.as_str().as_bytes(), task.to_json());
            let producer = &self.producer;
            let published = producer
                .publish_to(&self.topic, partition, Some(key), value.as_bytes(), &headers)
                .await;
            if let (Some(placement), Ok(position)) = (&self.placement, &published) {
                placement.published(*position);
            }
            published.map_err(|error| {
                let queue_error = match &error {
                    // The topic was recreated with fewer partitions, or the producer does not know a new one yet.
                    PublishError::NoTopic { .. } if partition.is_some() => {
                        self.metrics.placement(PlacementKind::Hashed.name());
                        QueueError::NoPartition
                    }
                    error if error.may_be_stored() => QueueError::Unknown,
                    _ => QueueError::NotQueued,
                };
                queue_error(WorkError::new(error.class(), error))
            })
        })
    }

    fn progress(&self, partition: i32) -> BoxFuture<'_, Option<QueueProgress>> {
        Box::pin(async move {
            let read = async {
                let _permit = self.offset_reads.acquire().await.ok()?;
                match self.progress.partition(partition, READ_LIMIT).await {
                    Ok(progress) => Some(progress),
                    Err(error) => {
                        tracing::debug!(partition, %error, "Cannot read the processors' committed offset");
                        None
                    }
                }
            };
            let progress = tokio::time::timeout(READ_LIMIT, read).await.ok()??;
            Some(progress.map_or_else(QueueProgress::default, queue_progress))
        })
    }

    fn close(&self, limit: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.producer.clone().close(limit).await {
                Ok(()) => tracing::info!("Kafka producer closed"),
                Err(error) => {
                    tracing::error!(%error, "Kafka producer closed with messages that no broker acknowledged");
                }
            }
        })
    }
}

fn queue_progress(PartitionProgress { committed, record }: PartitionProgress) -> QueueProgress {
    QueueProgress {
        committed: Some(committed),
        begun: record.start.is_some() || record.attempt > 0,
        start: record.start,
        percent: record.percent,
    }
}
