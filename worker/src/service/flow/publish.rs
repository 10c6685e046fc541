//! Publishes results, requeued messages and dead letters. Each is published only while this member owns the message's
//! partition, and retried until it succeeds or the partition is lost.

use std::time::{Duration, Instant};

use separation_contract::backoff::Backoff;
use separation_contract::message::{MAX_MESSAGE_BYTES, TaskResult};
use separation_contract::names;

use super::{Flow, Stop};
use crate::faults;
use crate::kafka::{Header, KAFKA_FIX};
use crate::telemetry::TraceContext;
use crate::work::{Dependency, HoldableStep, Role, WorkError};

/// Pauses before publishing is retried, up to half of the 30 s within which a task must continue after a refusal has
/// ended.
const PUBLISH_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(15),
};

impl<R: Role> Flow<'_, R> {
    pub(super) async fn publish_result(&self, result: Option<&TaskResult>) -> Result<(), Stop> {
        let Some(result) = result else {
            return Ok(());
        };
        let result = TaskResult {
            task_message: Some(self.full_position.clone()),
            ..result.clone()
        };
        // Without the start, which differs if another attempt began.
        let current = (self.message.position, result.to_json());
        if self.history.published.borrow().as_ref() == Some(&current) {
            // The partition was lost before the commit and assigned to this worker again.
            tracing::info!(position = %current.0, "The result is published already");
            return Ok(());
        }
        let started = TaskResult {
            started_at: self.record.started_at(),
            ..result
        };
        let topic = &self.service.settings.result_topic;
        self.publish(topic, started.to_json().as_bytes(), &[]).await?;
        self.history.published.replace(Some(current));
        Ok(())
    }

    pub(super) async fn dead_letter(&self, label: &'static str, reason: &str) -> Result<(), Stop> {
        if self.record.is_dead_lettered() {
            tracing::info!(position = %self.message.position, "The message is in the dead-letter topic already");
            return Ok(());
        }
        let value = self.message.value.as_deref().unwrap_or_default();
        let kept = &value[..value.len().min(MAX_MESSAGE_BYTES)];
        let position = self.message.position;
        let header = |name, value: String| Header { name, value };
        let mut headers = vec![
            header(names::DEAD_LETTER_REASON, reason.to_owned()),
            header(names::DEAD_LETTER_TOPIC, self.service.settings.topic.clone()),
            header(names::DEAD_LETTER_PARTITION, position.partition.to_string()),
            header(names::DEAD_LETTER_OFFSET, position.offset.to_string()),
        ];
        if kept.len() < value.len() {
            headers.push(header(names::DEAD_LETTER_TRUNCATED_FROM, value.len().to_string()));
        }
        self.publish(&self.service.settings.dead_letter_topic, kept, &headers)
            .await?;
        self.service.metrics.dead_letter(label);
        // Reporting the failure may take long, and another worker may have to continue it.
        self.record.record_dead_letter();
        self.record.write_changed().await?;
        faults::point("dead_lettered").await;
        Ok(())
    }

    /// Retries publishing until it succeeds or the message's partition is lost.
    pub(super) async fn publish(
        &self,
        topic: &str,
        value: &[u8],
        extra_headers: &[Header],
    ) -> Result<(), Stop> {
        let mut headers = extra_headers.to_vec();
        headers.push(Header {
            name: TraceContext::HEADER,
            value: self.message.trace.child().to_string(),
        });
        let key = self.message.key.as_deref();
        let mut failures = 0;
        let mut step = HoldableStep::new(self.service.metrics.holds(), "publish");
        loop {
            self.confirm().await?;
            let begin = Instant::now();
            let published = tokio::select! {
                published = self.service.producer.publish(topic, key, value, &headers) => published,
                () = self.lost.cancelled() => return Err(Stop::Lost),
            };
            self.service.metrics.stage("publish", begin.elapsed());
            let error = match published {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // Committing without publishing would lose the outcome, so even refusals are retried.
            let dependency = Dependency {
                name: error
                    .dependency()
                    .unwrap_or_else(|| "kafka:unreachable".to_owned()),
                fix: KAFKA_FIX,
            };
            step.failed(&WorkError::held(dependency, error), Instant::now());
            failures += 1;
            self.pause(PUBLISH_BACKOFF.after(failures)).await?;
        }
    }
}
