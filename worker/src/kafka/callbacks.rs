//! What librdkafka calls back within polling: partitions come and go, and lines for the log.
//!
//! Decides nothing by itself: `membership` says what becomes of partitions.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use separation_contract::kafka::Assignor;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admission::Accepted;
use super::client;
use super::gate::Gate;
use super::membership::{Membership, RevokeAnswer};
use super::message::{Message, Place};
use super::silence::Silence;
use crate::telemetry::Metrics;

/// Called by librdkafka within polling; shared with the consumer's own methods, which run on the same task.
pub(super) struct Callbacks {
    pub(super) metrics: Metrics,
    /// How the group shares partitions, which decides how they are taken and given up. The client's own answer depends on
    /// where a rebalance stands.
    pub(super) assignor: Assignor,
    state: Mutex<State>,
    pub(super) gate: Gate,
    /// Wakes who waits for the assignment to stand still.
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) membership: Membership,
    /// Whether messages may come: none is worked on, the assignment has settled, no shutdown was asked for.
    pub(super) open: bool,
    /// Cancelled when the work's partition is lost.
    pub(super) work: Option<CancellationToken>,
    /// Partitions that went since their queues were last seen to.
    pub(super) gone: Vec<i32>,
    pub(super) silence: Silence,
    /// No message is wanted any more.
    pub(super) ends: bool,
    /// The next message, which was looked for while one was worked on.
    pub(super) next: Option<Message>,
    /// Ends of partitions that were met when it was looked for.
    pub(super) ended: Vec<i32>,
    /// Its place and when the brokers were asked, if a commit of ours confirmed that it is this member's.
    pub(super) confirmed: Option<(Place, Instant)>,
}

impl Callbacks {
    pub(super) fn new(metrics: Metrics, assignor: Assignor) -> Self {
        Self {
            gate: Gate::new(metrics.holds().clone()),
            metrics,
            assignor,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl State {
    /// A partition is read again from another offset.
    pub(super) fn moved(&mut self, partition: i32) {
        self.membership.moved(partition);
        self.silence.taken(&[partition], Instant::now());
        self.next.take_if(|next| next.place.partition == partition);
        self.confirmed.take_if(|(place, _)| place.partition == partition);
    }

    /// Forgets what is known of partitions that went.
    pub(super) fn went(&mut self, partitions: &[i32]) {
        self.gone.extend(partitions);
        self.silence.gone(partitions);
        self.ended.retain(|partition| !partitions.contains(partition));
        self.next
            .take_if(|next| partitions.contains(&next.place.partition));
        self.confirmed
            .take_if(|(place, _)| partitions.contains(&place.partition));
    }
}

impl Callbacks {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the state")
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let numbers = numbers(partitions);
        self.gate.accepted(Accepted::Client);
        log_failure(
            "take",
            match self.assignor {
                Assignor::CooperativeSticky => consumer.incremental_assign(partitions),
                Assignor::Range => consumer.assign(partitions),
            },
        );
        {
            let mut state = self.state();
            state.membership.assign(&numbers);
            state.silence.taken(&numbers, Instant::now());
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
                tracing::warn!(partitions = ?numbers, "Partitions lost, with the task that was running");
                if let Some(work) = state.work.take() {
                    work.cancel();
                }
            } else {
                tracing::warn!(partitions = ?numbers, "Partitions lost");
            }
        } else if state.membership.revoke(&numbers) == RevokeAnswer::Hold {
            self.metrics.rebalance("held");
            tracing::info!(partitions = ?numbers, "Partitions asked back; they follow when the running task is committed");
            return;
        } else {
            self.metrics.rebalance("given_up");
            tracing::info!(partitions = ?numbers, "Partitions given up");
        }
        state.went(&numbers);
        log_failure("give up", give_up(consumer, self.assignor, partitions));
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, part: &str, line: &str) {
        client::log(level, part, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
        self.gate.met(&error);
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

pub(super) fn give_up<C: ConsumerContext>(
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

/// Giving up fails only when a rebalance has taken the partitions meanwhile. What could not be taken stays silent, and is
/// taken anew then.
pub(super) fn log_failure(what: &str, result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "Could not {what} partitions");
    }
}
