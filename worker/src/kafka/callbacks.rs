//! Callbacks that librdkafka runs while it is polled: rebalances, errors and log lines.
//!
//! Decides nothing itself: `membership` decides what happens to partitions.

use std::error::Error;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use separation_contract::kafka::Assignor;
use separation_kafka::TokenCache;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admission::Accepted;
use super::client;
use super::gate::Gate;
use super::membership::{Membership, RevokeDecision};
use super::message::{Message, Position};
use super::stall_detector::StallDetector;
use super::tokens;
use crate::telemetry::Metrics;

/// librdkafka runs the callbacks while it is polled, on the same task as the consumer's methods, which share the state.
pub(super) struct Callbacks {
    pub(super) metrics: Metrics,
    /// The group's assignor, which decides between incremental and full assignment. Stored here because the protocol
    /// that the client reports depends on the progress of a rebalance.
    pub(super) assignor: Assignor,
    tokens: Option<TokenCache>,
    state: Mutex<State>,
    pub(super) gate: Gate,
    /// Notified when the assignment changes.
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) membership: Membership,
    /// Whether messages may be delivered: none is being processed, the assignment is stable, no shutdown was requested.
    pub(super) open: bool,
    /// Canceled when the partition of the running message is lost.
    pub(super) running: Option<CancellationToken>,
    /// Partitions that were revoked or lost and whose queues are not removed yet.
    pub(super) removed: Vec<i32>,
    pub(super) stalls: StallDetector,
    /// Whether the consumer is shutting down: no further message is delivered.
    pub(super) closed: bool,
    /// The next message, prefetched while another one is processed.
    pub(super) prefetched: Option<Message>,
    /// Partitions whose end was reached by that prefetch.
    pub(super) reached_ends: Vec<i32>,
    /// Position of the prefetched message and the time of the commit request, if that commit confirmed the ownership.
    pub(super) confirmed: Option<(Position, Instant)>,
}

impl Callbacks {
    pub(super) fn new(metrics: Metrics, assignor: Assignor, tokens: Option<TokenCache>) -> Self {
        Self {
            gate: Gate::new(metrics.holds().clone()),
            metrics,
            assignor,
            tokens,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl State {
    /// Resets the state of a partition that is read from another offset.
    pub(super) fn moved(&mut self, partition: i32) {
        self.membership.moved(partition);
        self.stalls.assigned(&[partition], Instant::now());
        self.prefetched
            .take_if(|next| next.position.partition == partition);
        self.confirmed
            .take_if(|(position, _)| position.partition == partition);
    }

    /// Drops the state of partitions that were revoked or lost.
    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.removed.extend(partitions);
        self.stalls.removed(partitions);
        self.reached_ends
            .retain(|partition| !partitions.contains(partition));
        self.prefetched
            .take_if(|next| partitions.contains(&next.position.partition));
        self.confirmed
            .take_if(|(position, _)| partitions.contains(&position.partition));
    }
}

impl Callbacks {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds this lock")
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let numbers = numbers(partitions);
        self.gate.accepted(Accepted::Client);
        log_failure(
            "assign",
            match self.assignor {
                Assignor::CooperativeSticky => consumer.incremental_assign(partitions),
                Assignor::Range => consumer.assign(partitions),
            },
        );
        {
            let mut state = self.state();
            state.membership.assign(&numbers);
            state.stalls.assigned(&numbers, Instant::now());
        }
        self.metrics.rebalance("assigned");
        tracing::info!(partitions = ?numbers, "Partitions assigned");
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let numbers = numbers(partitions);
        let mut state = self.state();
        if consumer.assignment_lost() {
            self.metrics.rebalance("lost");
            if state.membership.lose(&numbers) {
                tracing::warn!(partitions = ?numbers, "Partitions lost, including that of the running task");
                if let Some(running) = state.running.take() {
                    running.cancel();
                }
            } else {
                tracing::warn!(partitions = ?numbers, "Partitions lost");
            }
        } else if state.membership.revoke(&numbers) == RevokeDecision::Retain {
            self.metrics.rebalance("retained");
            tracing::info!(partitions = ?numbers, "Revoked partitions retained until the running task is committed");
            return;
        } else {
            self.metrics.rebalance("revoked");
            tracing::info!(partitions = ?numbers, "Partitions revoked");
        }
        state.forget(&numbers);
        log_failure("unassign", unassign(consumer, self.assignor, partitions));
    }
}

impl ClientContext for Callbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        tokens::for_client(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, part: &str, line: &str) {
        client::log(level, part, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
        tokens::renew_refused(self.tokens.as_ref(), &error, reason);
        self.gate.record_error(&error);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, partitions),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoked(consumer, partitions),
            other => tracing::error!(error = ?other, "Rebalance failed"),
        }
        self.changed.notify_waiters();
    }
}

pub(super) fn unassign<C: ConsumerContext>(
    consumer: &impl rdkafka::consumer::Consumer<C>,
    assignor: Assignor,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match assignor {
        Assignor::CooperativeSticky => consumer.incremental_unassign(partitions),
        Assignor::Range => consumer.unassign(),
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<i32> {
    let elements = partitions.elements();
    elements.iter().map(|element| element.partition()).collect()
}

/// Unassigning fails only when a rebalance has removed the partitions in the meantime. A partition that could not be
/// assigned delivers nothing, so it is reassigned as a stalled one.
pub(super) fn log_failure(what: &str, result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "Could not {what} partitions");
    }
}
