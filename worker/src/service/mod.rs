//! The service loop: joins consumer, role and producer for one message at a time, and ends in order.
//!
//! Polls all the time. Side effects have one order: the role's own, publish, commit, clean up.

mod failure;
mod flow;
mod markers;
mod record;
mod settle;
mod shutdown;

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use separation_contract::offset_metadata::OffsetMetadata;
use tokio::sync::watch;

pub use flow::Ended;
pub use shutdown::Shutdown;

use crate::clock::unix_time;
use crate::kafka::{CommitError, Consumer, KafkaError, Place, Polled, Producer, Refusal};
use crate::settings::ConsumerSettings;
use crate::telemetry::Metrics;
use crate::work::Role;
use flow::Flow;
use markers::Markers;
use settle::Settle;

/// How long messages may wait for a broker when the producer closes.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// How long leaving the group may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// How long leaving the group may take when everything is to end at once.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// How long taking back the attempt at a message may take when its work is aborted.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Activity {
    /// The model is not loaded, or the Kafka client not running.
    Starting,
    /// Waiting for a message.
    Idle,
    /// Working on a message.
    Busy {
        /// Its task, or its place where it names none.
        task: String,
    },
    /// Taking no further message; the running one goes on.
    Draining {
        /// The running task, if any.
        task: Option<String>,
    },
    /// The group is left.
    Stopped,
}

/// Why a service ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The Kafka client cannot go on.
    #[error("the Kafka client failed for good")]
    Kafka(#[source] KafkaError),
    /// The brokers accepted this process and have refused it for too long.
    #[error(transparent)]
    Refused(Refusal),
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// In order: nothing was running.
    Drained,
    /// At once, leaving a message for another worker.
    Aborted,
}

/// A search for ends that may be committed; the partitions again where it failed.
type Look<'s> = Pin<Box<dyn Future<Output = Result<Vec<Place>, Vec<i32>>> + 's>>;

/// Everything that a role needs to serve messages.
pub struct Service<R> {
    /// What is done with messages.
    pub role: Arc<R>,
    /// Where they come from.
    pub consumer: Consumer,
    /// Where results go.
    pub producer: Producer,
    /// How messages are taken, and what becomes of those that fail.
    pub settings: ConsumerSettings,
    /// What is counted.
    pub metrics: Metrics,
    /// Says what the worker is doing.
    pub activity: watch::Sender<Activity>,
}

impl<R: Role> Service<R> {
    /// Serves messages until a shutdown is asked for, then ends in order.
    ///
    /// # Errors
    /// When the Kafka client fails for good.
    pub async fn run(self, shutdown: &Shutdown) -> Result<Exit, ServiceError> {
        self.activity.send_replace(Activity::Idle);
        let served = self.serve(shutdown).await;
        let limit = match served {
            Ok(Exit::Drained) => LEAVE_LIMIT,
            Ok(Exit::Aborted) | Err(_) => ABORT_LIMIT,
        };
        if matches!(served, Ok(Exit::Drained)) {
            tracing::info!("Final offset committed");
        }
        match tokio::time::timeout(limit, self.consumer.leave()).await {
            Ok(()) => tracing::info!("Kafka consumer closed"),
            Err(_) => tracing::warn!("Kafka consumer left without an answer from the brokers"),
        }
        let flush = if limit == LEAVE_LIMIT {
            FLUSH_LIMIT
        } else {
            ABORT_LIMIT
        };
        match self.producer.close(flush).await {
            Ok(()) => tracing::info!("Kafka producer closed"),
            Err(error) => tracing::warn!(%error, "Kafka producer closed with messages waiting"),
        }
        self.activity.send_replace(Activity::Stopped);
        served
    }

    async fn serve(&self, shutdown: &Shutdown) -> Result<Exit, ServiceError> {
        let mut settle = Settle::new(self.settings.settle);
        let mut markers = Markers::new(Instant::now());
        let mut look: Option<Look<'_>> = None;
        let published = RefCell::new(None);
        let mut changes = 0;
        while !shutdown.drain.is_cancelled() {
            let polled = tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                now_changed = self.consumer.assignment_changed(changes) => {
                    changes = now_changed;
                    let now = Instant::now();
                    settle.assignment_changed(now, self.consumer.owns_any());
                    markers.assignment_changed(now);
                    look = None;
                    continue;
                }
                () = settle.wait() => {
                    settle.done();
                    self.consumer.open();
                    continue;
                }
                polled = self.consumer.poll() => polled,
                found = async { look.as_mut().expect("there is a look").await }, if look.is_some() => {
                    look = None;
                    for place in found.map_err(|partitions| markers.again(&partitions)).unwrap_or_default() {
                        self.step_over(place, shutdown).await?;
                    }
                    continue;
                }
                () = until(markers.due()), if look.is_none() => {
                    look = Some(Box::pin(self.look(markers.take(Instant::now()))));
                    continue;
                }
            };
            match polled {
                Polled::Message(message) => {
                    // What it finds holds only until a message is taken.
                    look = None;
                    let Some(lost) = self.consumer.begin(message.place.partition) else {
                        continue;
                    };
                    let flow = Flow::new(self, message, lost, shutdown.drain.clone(), &published);
                    match self.accompany(flow, shutdown).await? {
                        Some(_) => {}
                        None => return Ok(Exit::Aborted),
                    }
                    markers.idle(Instant::now());
                    if !shutdown.drain.is_cancelled() {
                        self.activity.send_replace(Activity::Idle);
                        self.consumer.open();
                    }
                }
                Polled::EndOfPartition(partition) => markers.end_reached(partition),
                Polled::Fatal(error) => return Err(ServiceError::Kafka(error)),
                Polled::Refused(refusal) => return Err(ServiceError::Refused(refusal)),
            }
        }
        self.consumer.close_intake();
        self.activity.send_replace(Activity::Draining { task: None });
        tracing::info!("Shutdown requested, stopping message consumption");
        Ok(Exit::Drained)
    }

    /// Works on a message to its end and counts it. Nothing if the work was aborted.
    async fn accompany(&self, flow: Flow<'_, R>, shutdown: &Shutdown) -> Result<Option<Ended>, ServiceError> {
        let task = flow.name();
        let begin = Instant::now();
        self.activity.send_replace(Activity::Busy { task: task.clone() });
        self.metrics.message_begun(unix_time().as_secs_f64());
        let ended = self.poll_beside(&flow, &task, shutdown).await;
        let outcome = match &ended {
            Ok(Some(ended)) => ended.word(),
            Ok(None) | Err(_) => "aborted",
        };
        self.metrics.message_ended(outcome, begin.elapsed());
        if matches!(ended, Ok(None | Some(Ended::Released)) | Err(_)) {
            flow.release(RELEASE_LIMIT).await;
        }
        if outcome == "aborted" {
            tracing::warn!(
                task_uuid = task,
                "Aborted; the task is left uncommitted for another worker"
            );
        }
        self.consumer.end();
        ended
    }

    /// Polls while a message is worked on. Nothing if the work is to be aborted.
    async fn poll_beside(
        &self,
        flow: &Flow<'_, R>,
        task: &str,
        shutdown: &Shutdown,
    ) -> Result<Option<Ended>, ServiceError> {
        let mut work = pin!(flow.run());
        let mut draining = false;
        loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.abort.cancelled() => return Ok(None),
                ended = &mut work => return ended.map(Some),
                () = shutdown.drain.cancelled(), if !draining => {
                    draining = true;
                    self.consumer.close_intake();
                    tracing::info!(task_uuid = task, "Finishing the running task before the shutdown");
                    self.activity.send_replace(Activity::Draining { task: Some(task.to_owned()) });
                    continue;
                }
                polled = self.consumer.poll() => polled,
            };
            self.not_now(polled)?;
        }
    }

    /// Looks for partitions in which nothing but markers of transactions waits; gives them back if that fails.
    async fn look(&self, partitions: Vec<i32>) -> Result<Vec<Place>, Vec<i32>> {
        let found = self.consumer.trailing(partitions.clone()).await;
        found.map_err(|error| {
            tracing::debug!(%error, "Could not look for markers of transactions");
            partitions
        })
    }

    /// Commits the end of a partition in which no message waits. Nothing is lost if that is left undone.
    async fn step_over(&self, place: Place, shutdown: &Shutdown) -> Result<(), ServiceError> {
        if self.consumer.begin(place.partition).is_none() {
            return Ok(());
        }
        let no_record = OffsetMetadata::default();
        let mut commit = pin!(self.consumer.commit(place, &no_record));
        loop {
            let polled = tokio::select! {
                biased;
                committed = &mut commit => {
                    match committed {
                        Ok(()) => tracing::info!(%place, "Stepped over markers of transactions"),
                        Err(CommitError::Lost | CommitError::NoTopic) => {}
                        Err(CommitError::Fatal(error)) => return Err(ServiceError::Kafka(error)),
                    }
                    break;
                }
                () = shutdown.drain.cancelled() => break,
                polled = self.consumer.poll() => polled,
            };
            self.not_now(polled)?;
        }
        self.consumer.end();
        self.consumer.open();
        Ok(())
    }

    /// Serves what polling gave while no message is wanted.
    fn not_now(&self, polled: Polled) -> Result<(), ServiceError> {
        match polled {
            // It came before its partition had a queue of its own.
            Polled::Message(message) => self.consumer.put_back(&message),
            Polled::EndOfPartition(_) => {}
            Polled::Fatal(error) => return Err(ServiceError::Kafka(error)),
            Polled::Refused(refusal) => return Err(ServiceError::Refused(refusal)),
        }
        Ok(())
    }
}

/// Waits until then; for ever if there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
