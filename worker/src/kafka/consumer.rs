//! A member of a consumer group that processes one message at a time and is polled continuously.
//!
//! Each partition has its own message queue, which is not read while a message is processed; polling continues, so that
//! rebalances and errors are handled. (Pausing partitions would do the same, but librdkafka resumes fetching up to a
//! second late.) `membership` decides what happens to owned partitions.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use separation_contract::kafka::Assignor;
use tokio_util::sync::CancellationToken;

use super::admission::{Accepted, Refusal};
use super::callbacks::{Callbacks, State, log_failure, unassign};
use super::client;
use super::message::{Message, Position};
use super::trailing::{self, Reader};
use crate::settings::{ConsumerSettings, KafkaSettings};
use crate::telemetry::Metrics;

/// Result of polling.
#[derive(Debug)]
pub enum Polled {
    /// A message. [`Consumer::begin`] starts its processing.
    Message(Message),
    /// The end of a partition was reached.
    EndOfPartition(i32),
    /// The client cannot continue.
    Fatal(KafkaError),
    /// The brokers have refused this process for too long.
    Refused(Refusal),
}

/// A member of a consumer group.
pub struct Consumer {
    /// Dropped before the client, to which each queue holds a reference.
    queues: Mutex<Queues>,
    pub(super) inner: Arc<StreamConsumer<Callbacks>>,
    pub(super) topic: String,
    /// Settings of the readers that search for transaction markers.
    reader: Reader,
    /// Held while a commit is in flight, even if its caller was dropped: it must not arrive after a later one.
    pub(super) commit_in_flight: Arc<tokio::sync::Mutex<()>>,
}

/// The queues of the owned partitions.
#[derive(Default)]
struct Queues {
    by_partition: BTreeMap<i32, Arc<StreamPartitionQueue<Callbacks>>>,
    /// The partition that is read first; it rotates, so that no partition starves.
    first: i32,
}

impl Consumer {
    /// Joins the group. Messages are delivered after [`Self::open`].
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn join(kafka: &KafkaSettings, settings: &ConsumerSettings, metrics: Metrics) -> KafkaResult<Self> {
        let mut config = client::config(
            kafka,
            separation_contract::kafka::one_message_consumer(
                &settings.group,
                &settings.timings,
                settings.assignor,
                settings.reset,
            ),
        );
        config.set("enable.partition.eof", "true");
        let callbacks = Callbacks::new(metrics, settings.assignor, kafka.tokens.clone());
        let inner: StreamConsumer<Callbacks> = config.create_with_context(callbacks)?;
        inner.subscribe(&[&settings.topic])?;
        Ok(Self {
            queues: Mutex::default(),
            inner: Arc::new(inner),
            topic: settings.topic.clone(),
            reader: Reader::new(config, kafka),
            commit_in_flight: Arc::default(),
        })
    }

    /// Polls until there is a result. The caller must poll continuously. The future may be dropped at any time.
    pub async fn poll(&self) -> Polled {
        let gate = &self.inner.context().gate;
        loop {
            let mut changed = pin!(self.inner.context().changed.notified());
            changed.as_mut().enable();
            let queues = self.update_queues();
            let receivers: Vec<_> = queues.iter().map(|queue| Box::pin(queue.recv())).collect();
            let message = async {
                if let Some(prefetched) = self.take_prefetched() {
                    return Some(prefetched);
                }
                match receivers.is_empty() {
                    true => std::future::pending().await,
                    false => self.convert(select_all(receivers).await.0),
                }
            };
            let polled = tokio::select! {
                biased;
                polled = self.inner.recv() => self.convert(polled),
                () = changed => continue,
                polled = message => polled,
                refusal = gate.refused_too_long(|| self.check_refusal()) => return Polled::Refused(refusal),
                () = self.wait_for_stall() => {
                    match self.reassign_stalled() {
                        Ok(()) => continue,
                        Err(error) => return Polled::Fatal(error),
                    }
                }
            };
            if let Some(polled) = polled {
                return polled;
            }
        }
    }

    /// Converts the result of a queue; `None` if the caller does not need it.
    fn convert(&self, polled: KafkaResult<BorrowedMessage<'_>>) -> Option<Polled> {
        match polled {
            Ok(message) => {
                self.queues().first = message.partition() + 1;
                self.state().stalls.delivered(message.partition());
                self.inner.context().gate.accepted(Accepted::Topic);
                Some(Polled::Message(Message::from_borrowed(&message)))
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.state().stalls.delivered(partition);
                self.inner.context().gate.accepted(Accepted::Topic);
                Some(Polled::EndOfPartition(partition))
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => Some(Polled::Fatal(error)),
            Err(error) => {
                tracing::debug!(%error, "Poll failed; polling continues");
                self.record_error(&error);
                None
            }
        }
    }

    /// The result of an earlier [`Self::prefetch`], if messages may be delivered.
    fn take_prefetched(&self) -> Option<Polled> {
        let mut state = self.state();
        if !state.open {
            return None;
        }
        let ended = state.reached_ends.pop().map(Polled::EndOfPartition);
        ended.or_else(|| state.prefetched.take().map(Polled::Message))
    }

    /// Position of the next message, if it is fetched already; called while another one is processed. `None` during a
    /// shutdown, or while revoked partitions are retained.
    pub fn prefetch(&self) -> Option<Position> {
        let queues = {
            let state = self.state();
            if state.closed || state.membership.retains_revoked() {
                return None;
            }
            if let Some(next) = &state.prefetched {
                return Some(next.position);
            }
            let (queues, owned) = (self.queues(), &state.membership);
            let (before, from) = (
                queues.by_partition.range(..queues.first),
                queues.by_partition.range(queues.first..),
            );
            let owned_queues = from
                .chain(before)
                .filter(|(partition, _)| owned.known_commit(**partition).is_some());
            owned_queues
                .map(|(_, queue)| Arc::clone(queue))
                .collect::<Vec<_>>()
        };
        for queue in queues {
            match queue
                .recv()
                .now_or_never()
                .and_then(|polled| self.convert(polled))
            {
                Some(Polled::Message(message)) => {
                    let position = message.position;
                    self.state().prefetched = Some(message);
                    return Some(position);
                }
                Some(Polled::EndOfPartition(partition)) => self.state().reached_ends.push(partition),
                Some(Polled::Fatal(_) | Polled::Refused(_)) | None => {}
            }
        }
        None
    }

    /// Time of the request that committed `position` as the next offset, if the previous message's commit did so: this
    /// member owns the message, and its metadata is empty.
    pub fn confirmed(&self, position: Position) -> Option<Instant> {
        let confirmed = self.state().confirmed.take();
        confirmed
            .filter(|(confirmed, _)| *confirmed == position)
            .map(|(_, at)| at)
    }

    /// Creates the missing queues of owned partitions, and returns the queues to read from now.
    fn update_queues(&self) -> Vec<Arc<StreamPartitionQueue<Callbacks>>> {
        let mut state = self.state();
        let mut queues = self.queues();
        for removed in state.removed.drain(..) {
            queues.by_partition.remove(&removed);
        }
        for partition in state.membership.owned() {
            if !queues.by_partition.contains_key(&partition)
                && let Some(queue) = self.inner.split_partition_queue(&self.topic, partition)
            {
                queues.by_partition.insert(partition, Arc::new(queue));
            }
        }
        if !state.open {
            return Vec::new();
        }
        let (before, from) = (
            queues.by_partition.range(..queues.first),
            queues.by_partition.range(queues.first..),
        );
        from.chain(before).map(|(_, queue)| Arc::clone(queue)).collect()
    }

    /// Waits until a partition has delivered nothing for too long; forever while no message may be delivered.
    async fn wait_for_stall(&self) {
        let due = {
            let state = self.state();
            state.stalls.next_deadline().filter(|_| state.open)
        };
        match due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Reassigns owned partitions that deliver nothing; they are read from the committed offset.
    ///
    /// This is local to the client and triggers no rebalance.
    fn reassign_stalled(&self) -> KafkaResult<()> {
        let (stalled, owned) = {
            let mut state = self.state();
            let stalled = state.stalls.overdue(Instant::now());
            state.removed.extend(&stalled);
            (stalled, state.membership.owned().collect::<Vec<_>>())
        };
        if stalled.is_empty() {
            return Ok(());
        }
        tracing::warn!(partitions = ?stalled, "Partitions stalled; reassigning them");
        self.inner.context().metrics.rebalance("reassigned");
        match self.inner.context().assignor {
            Assignor::CooperativeSticky => {
                let stalled = list(&self.topic, &stalled);
                // Fails if the client never assigned them.
                if let Err(error) = self.inner.incremental_unassign(&stalled) {
                    tracing::debug!(%error, "The partitions were not assigned");
                }
                self.inner.incremental_assign(&stalled)
            }
            Assignor::Range => self.inner.assign(&list(&self.topic, &owned)),
        }
    }

    /// Lets messages be delivered.
    pub fn open(&self) {
        let mut state = self.state();
        state.open = !state.closed;
        state.stalls.reading_from(Instant::now());
    }

    /// Delivers no further message, for the rest of this consumer's life.
    pub fn close_intake(&self) {
        let mut state = self.state();
        state.open = false;
        state.closed = true;
    }

    /// Starts processing a message of `partition`: no other is delivered until [`Self::end`] and [`Self::open`]. The
    /// token is canceled if the partition is lost.
    ///
    /// `None` if this member no longer owns the partition.
    pub fn begin(&self, partition: i32) -> Option<CancellationToken> {
        let mut state = self.state();
        state.membership.begin(partition)?;
        state.open = false;
        let token = CancellationToken::new();
        state.running = Some(token.clone());
        Some(token)
    }

    /// Finds the ends of these partitions that may be committed because only transaction markers and aborted messages
    /// precede them. The result is valid until a message is processed or the assignment changes.
    ///
    /// # Errors
    /// When a request fails.
    pub fn trailing(&self, partitions: Vec<i32>) -> impl Future<Output = KafkaResult<Vec<Position>>> + use<> {
        let (consumer, reader) = (Arc::clone(&self.inner), self.reader.clone());
        let topic = self.topic.clone();
        // The calls block.
        let found =
            tokio::task::spawn_blocking(move || trailing::find(&*consumer, &reader, &topic, &partitions));
        async move { found.await.unwrap_or(Err(KafkaError::Canceled)) }
    }

    /// Handles a message that was delivered while none may be: its partition is read again from the committed offset as
    /// soon as messages may be delivered.
    pub fn reread(&self, message: &Message) {
        self.state()
            .stalls
            .expire(message.position.partition, Instant::now());
    }

    /// Ends the processing of a message, and unassigns partitions that were revoked in the meantime.
    pub fn end(&self) {
        let retained = {
            let mut state = self.state();
            state.running = None;
            let retained = state.membership.end();
            state.forget(&retained);
            retained
        };
        if !retained.is_empty() {
            tracing::info!(partitions = ?retained, "Retained partitions released after the running task");
            let assignor = self.inner.context().assignor;
            log_failure(
                "unassign",
                unassign(&*self.inner, assignor, &list(&self.topic, &retained)),
            );
        }
    }

    /// Reports an error response, which may be a refusal, to the gate.
    pub(super) fn record_error(&self, error: &KafkaError) {
        self.inner.context().gate.record_error(error);
    }

    /// Asks the brokers whether they still refuse this process. Runs in the background.
    fn check_refusal(&self) {
        let (consumer, requested) = (Arc::clone(&self.inner), list(&self.topic, &[0]));
        // The call blocks.
        tokio::task::spawn_blocking(move || {
            let answer = consumer.committed_offsets(requested, client::REFUSAL_CHECK_LIMIT);
            if answer.is_ok_and(|answer| answer.elements().iter().all(|one| one.error().is_ok())) {
                consumer.context().gate.accepted(Accepted::Client);
            }
        });
    }

    /// Waits until the number of assignment changes differs from `last_changes`, and returns it.
    pub async fn assignment_changed(&self, last_changes: u64) -> u64 {
        loop {
            let notified = self.inner.context().changed.notified();
            let changes = self.state().membership.changes();
            if changes != last_changes {
                return changes;
            }
            notified.await;
        }
    }

    /// Whether this member owns any partition.
    pub fn owns_any(&self) -> bool {
        self.state().membership.owned().next().is_some()
    }

    /// Leaves the group immediately, so that its partitions are reassigned.
    pub async fn leave(self) {
        // Dropping the client blocks until the brokers respond, and runs callbacks.
        let closed = tokio::task::spawn_blocking(move || drop(self));
        if closed.await.is_err() {
            tracing::error!("Closing the Kafka consumer failed");
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues
            .lock()
            .expect("no code panics while it holds this lock")
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.context().state()
    }
}

/// librdkafka closes only after the revocation of its partitions, which a running message would delay.
impl Drop for Consumer {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    list
}
