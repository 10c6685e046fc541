//! A member of a consumer group that holds one message at a time and is polled all the time.
//!
//! Each partition's messages wait in a queue of their own, which is left alone while a message is worked on; polling
//! goes on, so that rebalances and errors are served. (Pausing does the same, but librdkafka fetches up to a second after
//! it is resumed.) What happens to owned partitions is decided in `membership`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use separation_contract::kafka::Assignor;
use tokio_util::sync::CancellationToken;

use super::admission::{Accepted, Refusal};
use super::callbacks::{Callbacks, State, give_up, log_failure};
use super::client;
use super::message::{Message, Place};
use super::trailing;
use crate::settings::{ConsumerSettings, KafkaSettings};
use crate::telemetry::Metrics;

/// What polling gave.
#[derive(Debug)]
pub enum Polled {
    /// A message. It is not taken yet.
    Message(Message),
    /// All messages of a partition have been seen.
    EndOfPartition(i32),
    /// The client cannot go on.
    Fatal(KafkaError),
    /// The brokers have refused this process for too long.
    Refused(Refusal),
}

/// A member of a consumer group.
pub struct Consumer {
    /// Dropped before the client, which each of them holds.
    queues: Mutex<Queues>,
    pub(super) inner: Arc<StreamConsumer<Callbacks>>,
    pub(super) topic: String,
    /// Settings of readers that look for markers of transactions.
    reader: ClientConfig,
}

/// Messages of each owned partition.
#[derive(Default)]
struct Queues {
    of: BTreeMap<i32, Arc<StreamPartitionQueue<Callbacks>>>,
    /// The partition that is looked at first, so that none is starved by those before it.
    first: i32,
}

impl Consumer {
    /// Joins the group. Messages come once [`Self::open`] was called.
    ///
    /// # Errors
    /// When the settings are refused.
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
        let callbacks = Callbacks::new(metrics, settings.assignor);
        let inner: StreamConsumer<Callbacks> = config.create_with_context(callbacks)?;
        inner.subscribe(&[&settings.topic])?;
        Ok(Self {
            queues: Mutex::default(),
            inner: Arc::new(inner),
            topic: settings.topic.clone(),
            reader: trailing::reader(config),
        })
    }

    /// Polls until something comes. Has to be called all the time; may be dropped and called anew.
    pub async fn poll(&self) -> Polled {
        let gate = &self.inner.context().gate;
        loop {
            let mut changed = pin!(self.inner.context().changed.notified());
            changed.as_mut().enable();
            let queues = self.attend_queues();
            let waiting: Vec<_> = queues.iter().map(|queue| Box::pin(queue.recv())).collect();
            let message = async {
                if let Some(met) = self.met() {
                    return Some(met);
                }
                match waiting.is_empty() {
                    true => std::future::pending().await,
                    false => self.seen(select_all(waiting).await.0),
                }
            };
            let polled = tokio::select! {
                biased;
                polled = self.inner.recv() => self.seen(polled),
                () = changed => continue,
                polled = message => polled,
                refusal = gate.refused_for_good(|| self.ask_brokers()) => return Polled::Refused(refusal),
                () = self.long_silence() => {
                    match self.take_anew() {
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

    /// What comes of a queue, if it is anything to others.
    fn seen(&self, polled: KafkaResult<BorrowedMessage<'_>>) -> Option<Polled> {
        match polled {
            Ok(message) => {
                self.queues().first = message.partition() + 1;
                self.state().silence.heard(message.partition());
                self.inner.context().gate.accepted(Accepted::Topic);
                Some(Polled::Message(Message::of(&message)))
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.state().silence.heard(partition);
                self.inner.context().gate.accepted(Accepted::Topic);
                Some(Polled::EndOfPartition(partition))
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => Some(Polled::Fatal(error)),
            Err(error) => {
                tracing::debug!(%error, "Polling goes on");
                self.answered_with(&error);
                None
            }
        }
    }

    /// What was met when the next message was looked for, if messages may come.
    fn met(&self) -> Option<Polled> {
        let mut state = self.state();
        if !state.open {
            return None;
        }
        let ended = state.ended.pop().map(Polled::EndOfPartition);
        ended.or_else(|| state.next.take().map(Polled::Message))
    }

    /// The place of the message that is next in turn, if it is here already; asked while one is worked on. Nothing if
    /// no message is to follow, or partitions were asked back.
    pub fn next_in_turn(&self) -> Option<Place> {
        let queues = {
            let state = self.state();
            if state.ends || state.membership.is_asked_back() {
                return None;
            }
            if let Some(next) = &state.next {
                return Some(next.place);
            }
            let (queues, owned) = (self.queues(), &state.membership);
            let (before, from) = (queues.of.range(..queues.first), queues.of.range(queues.first..));
            let ours = from
                .chain(before)
                .filter(|(partition, _)| owned.noted(**partition).is_some());
            ours.map(|(_, queue)| Arc::clone(queue)).collect::<Vec<_>>()
        };
        for queue in queues {
            match queue.recv().now_or_never().and_then(|polled| self.seen(polled)) {
                Some(Polled::Message(message)) => {
                    let place = message.place;
                    self.state().next = Some(message);
                    return Some(place);
                }
                Some(Polled::EndOfPartition(partition)) => self.state().ended.push(partition),
                Some(Polled::Fatal(_) | Polled::Refused(_)) | None => {}
            }
        }
        None
    }

    /// When the brokers were asked to commit `place` as the next to read, if that was the commit of the message before
    /// and succeeded: the message is this member's, and its record is empty.
    pub fn confirmed(&self, place: Place) -> Option<Instant> {
        let confirmed = self.state().confirmed.take();
        confirmed.filter(|(of, _)| *of == place).map(|(_, at)| at)
    }

    /// Gives each owned partition a queue of its own, and the queues to read from now.
    fn attend_queues(&self) -> Vec<Arc<StreamPartitionQueue<Callbacks>>> {
        let mut state = self.state();
        let mut queues = self.queues();
        for gone in state.gone.drain(..) {
            queues.of.remove(&gone);
        }
        for partition in state.membership.owned() {
            if !queues.of.contains_key(&partition)
                && let Some(queue) = self.inner.split_partition_queue(&self.topic, partition)
            {
                queues.of.insert(partition, Arc::new(queue));
            }
        }
        if !state.open {
            return Vec::new();
        }
        let (before, from) = (queues.of.range(..queues.first), queues.of.range(queues.first..));
        from.chain(before).map(|(_, queue)| Arc::clone(queue)).collect()
    }

    /// Waits until nothing came of a partition for too long; for ever while no message is wanted.
    async fn long_silence(&self) {
        let due = {
            let state = self.state();
            state.silence.due().filter(|_| state.open)
        };
        match due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Takes partitions anew that are owned and of which nothing comes. They are read from what is committed.
    ///
    /// The group hears nothing of it.
    fn take_anew(&self) -> KafkaResult<()> {
        let (silent, owned) = {
            let mut state = self.state();
            let silent = state.silence.overdue(Instant::now());
            state.gone.extend(&silent);
            (silent, state.membership.owned().collect::<Vec<_>>())
        };
        if silent.is_empty() {
            return Ok(());
        }
        tracing::warn!(partitions = ?silent, "Nothing comes of these partitions; taking them anew");
        self.inner.context().metrics.rebalance("taken_anew");
        match self.inner.context().assignor {
            Assignor::CooperativeSticky => {
                let silent = list(&self.topic, &silent);
                // Refused where the client never took them.
                if let Err(error) = self.inner.incremental_unassign(&silent) {
                    tracing::debug!(%error, "The client had not taken the partitions");
                }
                self.inner.incremental_assign(&silent)
            }
            Assignor::Range => self.inner.assign(&list(&self.topic, &owned)),
        }
    }

    /// Lets messages come.
    pub fn open(&self) {
        let mut state = self.state();
        state.open = !state.ends;
        state.silence.listening(Instant::now());
    }

    /// Takes no further message, now and later.
    pub fn close_intake(&self) {
        let mut state = self.state();
        state.open = false;
        state.ends = true;
    }

    /// Takes a message of `partition`: nothing further comes until [`Self::end`]. The token is cancelled if the
    /// message is lost.
    ///
    /// Gives nothing if the partition is not owned any more.
    pub fn begin(&self, partition: i32) -> Option<CancellationToken> {
        let mut state = self.state();
        state.membership.begin(partition)?;
        state.open = false;
        let token = CancellationToken::new();
        state.work = Some(token.clone());
        Some(token)
    }

    /// Finds, of these partitions, the ends that may be committed because only markers of transactions and aborted
    /// messages come before them. What it finds holds as long as no message is taken and the assignment stays.
    ///
    /// # Errors
    /// When the brokers cannot tell.
    pub fn trailing(&self, partitions: Vec<i32>) -> impl Future<Output = KafkaResult<Vec<Place>>> + use<> {
        let (consumer, reader) = (Arc::clone(&self.inner), self.reader.clone());
        let topic = self.topic.clone();
        // librdkafka waits in the calls.
        let found =
            tokio::task::spawn_blocking(move || trailing::find(&*consumer, &reader, &topic, &partitions));
        async move { found.await.unwrap_or(Err(KafkaError::Canceled)) }
    }

    /// Puts a message back that came although none was wanted: its partition is read again from what is committed, once
    /// messages may come.
    pub fn put_back(&self, message: &Message) {
        self.state()
            .silence
            .suspect(message.place.partition, Instant::now());
    }

    /// The message's work has ended: gives up what was asked back meanwhile.
    pub fn end(&self) {
        let held = {
            let mut state = self.state();
            state.work = None;
            let held = state.membership.end();
            state.went(&held);
            held
        };
        if !held.is_empty() {
            tracing::info!(partitions = ?held, "Gave up partitions after the task that was running");
            let assignor = self.inner.context().assignor;
            log_failure(
                "give up",
                give_up(&*self.inner, assignor, &list(&self.topic, &held)),
            );
        }
    }

    /// The brokers answered with an error, which may be a refusal.
    pub(super) fn answered_with(&self, error: &KafkaError) {
        self.inner.context().gate.met(error);
    }

    /// Asks the brokers whether they still refuse this process. Nobody waits for the answer: it counts when it comes.
    fn ask_brokers(&self) {
        let (consumer, asked) = (Arc::clone(&self.inner), list(&self.topic, &[0]));
        // librdkafka waits in the call.
        tokio::task::spawn_blocking(move || {
            let answer = consumer.committed_offsets(asked, client::REFUSAL_QUESTION_LIMIT);
            if answer.is_ok_and(|answer| answer.elements().iter().all(|one| one.error().is_ok())) {
                consumer.context().gate.accepted(Accepted::Client);
            }
        });
    }

    /// Waits until the assignment changes, or did since `seen`; gives how often it has.
    pub async fn assignment_changed(&self, seen: u64) -> u64 {
        loop {
            let notified = self.inner.context().changed.notified();
            let changes = self.state().membership.changes();
            if changes != seen {
                return changes;
            }
            notified.await;
        }
    }

    /// Whether any partition is owned.
    pub fn owns_any(&self) -> bool {
        self.state().membership.owned().next().is_some()
    }

    /// Leaves the group at once, so that others take over.
    pub async fn leave(self) {
        // Dropping waits for the brokers, and calls back meanwhile.
        let closed = tokio::task::spawn_blocking(move || drop(self));
        if closed.await.is_err() {
            tracing::error!("Closing the Kafka consumer failed");
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues
            .lock()
            .expect("nothing panics while it holds the queues")
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.context().state()
    }
}

/// librdkafka closes only once its revocation is answered, which a message that is worked on would put off.
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
