//! A member of a consumer group that processes one message at a time and is polled continuously.
//!
//! Each partition has its own message queue. Its first message is read in advance, also while another one is processed;
//! the rest of the queue is not read, and polling continues, so that rebalances and errors are handled. (Pausing partitions
//! would do the same, but librdkafka resumes fetching up to a second late.) `membership` decides what happens to owned
//! partitions, `fetched` which message is next.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionList;
use separation_contract::kafka::Assignor;
use separation_contract::offset_metadata::OffsetMetadata;
use tokio_util::sync::CancellationToken;

use super::admission::{Accepted, Refusal};
use super::callbacks::{Callbacks, State, log_failure, unassign};
use super::client;
use super::membership::KnownCommit;
use super::message::{Message, Position};
use super::trailing::{self, Reader};
use crate::clock::unix_time;
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

/// The message queue of a partition.
type PartitionQueue = Arc<StreamPartitionQueue<Callbacks>>;

/// A member of a consumer group.
pub struct Consumer {
    /// Those of the owned partitions. Dropped before the client, to which each queue holds a reference.
    queues: Mutex<BTreeMap<i32, PartitionQueue>>,
    pub(super) inner: Arc<StreamConsumer<Callbacks>>,
    pub(super) topic: String,
    /// Settings of the readers that search for transaction markers.
    reader: Reader,
    /// Held while a commit is in flight, even if its caller was dropped: it must not arrive after a later one.
    pub(super) commit_in_flight: Arc<tokio::sync::Mutex<()>>,
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
            self.update_queues();
            let queues = self.queues_to_read();
            let next = async {
                let mut read = pin!(read_first(&queues));
                // A message is delivered only when no other one can be read without waiting: that may be an older one.
                if let Some(read) = read.as_mut().now_or_never() {
                    return self.keep(read);
                }
                if let Some(polled) = self.deliver() {
                    return Some(polled);
                }
                self.keep(read.await)
            };
            let polled = tokio::select! {
                biased;
                read = self.inner.recv() => self.keep(read),
                () = changed => continue,
                polled = next => polled,
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

    /// Keeps what was read from a queue until it may be delivered. Returns an error with which the client cannot continue.
    fn keep(&self, read: KafkaResult<BorrowedMessage<'_>>) -> Option<Polled> {
        match read {
            Ok(message) => {
                let message = Message::from_borrowed(&message);
                tracing::debug!(position = %message.position, "Message fetched");
                self.inner.context().gate.accepted(Accepted::Topic);
                let now_ms = i64::try_from(unix_time().as_millis()).unwrap_or(i64::MAX);
                self.state().keep(message, now_ms);
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.inner.context().gate.accepted(Accepted::Topic);
                self.state().keep_end(partition);
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Some(Polled::Fatal(error)),
            Err(error) => {
                tracing::debug!(%error, "Poll failed; polling continues");
                self.record_error(&error);
            }
        }
        None
    }

    /// The end of a partition, else the next message, if they may be delivered.
    fn deliver(&self) -> Option<Polled> {
        let mut state = self.state();
        if !state.open {
            return None;
        }
        let ended = state.reached_ends.pop_first().map(Polled::EndOfPartition);
        ended.or_else(|| state.fetched.take_next().map(Polled::Message))
    }

    /// Position of the message that would be delivered now; called while another one is processed. `None` if there is
    /// none, during a shutdown, or while revoked partitions are retained.
    pub fn prefetch(&self) -> Option<Position> {
        for queue in self.queues_to_read() {
            // Until its first message: the end of the partition may precede it.
            while let Some(read) = queue.recv().now_or_never() {
                let is_message = read.is_ok();
                // No error in these queues is fatal: such an error concerns the client and is in its own queue.
                self.keep(read);
                if is_message {
                    break;
                }
            }
        }
        let state = self.state();
        if !state.fetches() {
            return None;
        }
        state.fetched.next_position()
    }

    /// The metadata committed with `position`, and the time of the request, if the previous message's commit made it the
    /// next offset: this member owns the message.
    pub fn confirmed(&self, position: Position) -> Option<(OffsetMetadata, Instant)> {
        let mut state = self.state();
        let (_, at) = state
            .confirmed
            .take()
            .filter(|(confirmed, _)| *confirmed == position)?;
        match state.membership.known_commit(position.partition)? {
            KnownCommit::At(offset, record, _) if *offset == position.offset => Some((record.clone(), at)),
            KnownCommit::At(..) | KnownCommit::Unknown => None,
        }
    }

    /// Creates the missing queues of owned partitions, and drops those of others.
    fn update_queues(&self) {
        let mut state = self.state();
        let mut queues = self.queues();
        for removed in state.removed.drain(..) {
            queues.remove(&removed);
        }
        for partition in state.membership.owned() {
            if !queues.contains_key(&partition)
                && let Some(queue) = self.inner.split_partition_queue(&self.topic, partition)
            {
                queues.insert(partition, Arc::new(queue));
            }
        }
    }

    /// The queues of owned partitions of which no message is fetched, if messages are fetched now.
    fn queues_to_read(&self) -> Vec<PartitionQueue> {
        let state = self.state();
        if !state.fetches() {
            return Vec::new();
        }
        let queues = self.queues();
        let lacking = queues
            .iter()
            .filter(|(partition, _)| state.lacks_message(**partition));
        lacking.map(|(_, queue)| Arc::clone(queue)).collect()
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
    /// This is local to the client and triggers no rebalance. Called only once all fetched messages are delivered: `range`
    /// reads all partitions again.
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

    fn queues(&self) -> MutexGuard<'_, BTreeMap<i32, PartitionQueue>> {
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

/// The first result of any of these queues; waits forever without queues.
async fn read_first(queues: &[PartitionQueue]) -> KafkaResult<BorrowedMessage<'_>> {
    let receivers: Vec<_> = queues.iter().map(|queue| Box::pin(queue.recv())).collect();
    match receivers.is_empty() {
        true => std::future::pending().await,
        false => select_all(receivers).await.0,
    }
}

pub(super) fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    list
}
