//! Callbacks that librdkafka runs while it is polled: rebalances, errors and log lines.
//!
//! Decides nothing itself: `membership` decides what happens to partitions.

use std::collections::BTreeSet;
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
use super::fetched::Fetched;
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
    /// Messages that were fetched, maybe while another one was processed, and are not delivered yet.
    pub(super) fetched: Fetched,
    /// Partitions whose end was reached, which is not delivered yet.
    pub(super) reached_ends: BTreeSet<i32>,
    /// Position of a fetched message and the time of the commit request, if that commit confirmed the ownership.
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
    /// Whether messages are fetched: not during a shutdown, or while revoked partitions are retained.
    pub(super) fn fetches(&self) -> bool {
        !self.closed && !self.membership.retains_revoked()
    }

    /// Whether this member owns the partition and no message of it is fetched.
    pub(super) fn lacks_message(&self, partition: i32) -> bool {
        self.membership.known_commit(partition).is_some() && !self.fetched.has(partition)
    }

    /// Keeps a message, fetched at this time in milliseconds since 1970, until it is delivered, if this member owns its
    /// partition.
    pub(super) fn keep(&mut self, message: Message, fetched_ms: i64) {
        let partition = message.position.partition;
        self.stalls.delivered(partition);
        if self.membership.known_commit(partition).is_some() {
            self.fetched.insert(message, fetched_ms);
        }
    }

    /// Keeps the end of a partition until it is delivered.
    pub(super) fn keep_end(&mut self, partition: i32) {
        self.stalls.delivered(partition);
        self.reached_ends.insert(partition);
    }

    /// Resets the state of a partition that is read from another offset.
    pub(super) fn moved(&mut self, partition: i32) {
        self.membership.moved(partition);
        self.stalls.assigned(&[partition], Instant::now());
        self.fetched.remove(partition);
        self.confirmed
            .take_if(|(position, _)| position.partition == partition);
    }

    /// Drops the state of partitions that were revoked or lost.
    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.removed.extend(partitions);
        self.stalls.removed(partitions);
        self.reached_ends
            .retain(|partition| !partitions.contains(partition));
        for partition in partitions {
            self.fetched.remove(*partition);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of a member that owns partitions 0 to 2 and has fetched a message of each.
    fn fetched_of_three() -> State {
        let mut state = State::default();
        state.membership.assign(&[0, 1, 2]);
        for partition in 0..3 {
            keep(&mut state, partition);
        }
        state
    }

    fn keep(state: &mut State, partition: i32) {
        let position = Position { partition, offset: 5 };
        state.keep(Message::without_contents(position, Some(10)), 20);
    }

    /// Partitions in the order of delivery.
    fn taken(state: &mut State) -> Vec<i32> {
        let messages = std::iter::from_fn(|| state.fetched.take_next());
        messages.map(|message| message.position.partition).collect()
    }

    #[test]
    fn messages_of_revoked_partitions_are_dropped() {
        let mut state = fetched_of_three();
        state.membership.begin(2);
        assert_eq!(state.membership.revoke(&[0]), RevokeDecision::Release);
        state.forget(&[0]);
        // It was in librdkafka's own queue.
        keep(&mut state, 0);
        assert!(!state.lacks_message(0) && !state.lacks_message(1));
        state.membership.assign(&[0]);
        assert!(state.lacks_message(0), "it is read from the committed offset");
        assert_eq!(taken(&mut state), [1, 2]);
    }

    #[test]
    fn messages_of_retained_partitions_are_dropped_when_the_running_message_ends() {
        let mut state = fetched_of_three();
        state.membership.begin(0);
        assert!(state.fetches());
        assert_eq!(state.membership.revoke(&[0, 1]), RevokeDecision::Retain);
        assert!(!state.fetches());
        let retained = state.membership.end();
        state.forget(&retained);
        assert!(state.fetches());
        assert_eq!(taken(&mut state), [2]);
    }

    #[test]
    fn messages_of_a_partition_that_is_read_from_another_offset_are_dropped() {
        let mut state = fetched_of_three();
        state.moved(1);
        assert!(state.lacks_message(1));
        assert_eq!(taken(&mut state), [0, 2]);
    }
}
