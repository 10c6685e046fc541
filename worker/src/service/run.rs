//! The loop of a service: polls, processes one message at a time, and shuts down.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use separation_contract::offset_metadata::OffsetMetadata;

use super::flow::{Flow, History};
use super::markers::Markers;
use super::outcome::MessageOutcome;
use super::start_delay::StartDelay;
use super::{Activity, Exit, Service, ServiceError, Shutdown};
use crate::clock::unix_time;
use crate::kafka::{CommitError, Polled, Position};
use crate::work::Role;

/// How long closing the producer may wait for queued messages.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// How long leaving the group may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// How long leaving the group, and then closing the producer, may take when a message is left to another worker: the
/// platform kills the process 5 s after the drain of a message that takes too long.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// How long undoing the attempt count of a message that is left to another worker may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// A search for ends that may be committed. Returns the partitions to search again if it fails.
type MarkerSearch<'s> = Pin<Box<dyn Future<Output = Result<Vec<Position>, Vec<i32>>> + 's>>;

impl<R: Role> Service<R> {
    /// Processes messages until a shutdown is requested, then shuts down gracefully.
    ///
    /// # Errors
    /// When the Kafka client fails permanently, or Kafka has refused this process for too long.
    pub async fn run(self, shutdown: &Shutdown) -> Result<Exit, ServiceError> {
        self.activity.send_replace(Activity::Idle);
        let served = self.serve(shutdown).await;
        let (leave_limit, flush_limit) = match served {
            Ok(Exit::Drained) => (LEAVE_LIMIT, FLUSH_LIMIT),
            Ok(Exit::Released | Exit::Aborted) | Err(_) => (ABORT_LIMIT, ABORT_LIMIT),
        };
        if matches!(served, Ok(Exit::Drained)) {
            tracing::info!("Final offset committed");
        }
        match tokio::time::timeout(leave_limit, self.consumer.leave()).await {
            Ok(()) => tracing::info!("Kafka consumer closed"),
            Err(_) => tracing::warn!("Kafka consumer closed without a response from the brokers"),
        }
        match self.producer.close(flush_limit).await {
            Ok(()) => tracing::info!("Kafka producer closed"),
            Err(error) => tracing::warn!(%error, "Kafka producer closed with unsent messages"),
        }
        self.activity.send_replace(Activity::Stopped);
        served
    }

    async fn serve(&self, shutdown: &Shutdown) -> Result<Exit, ServiceError> {
        let mut start_delay = StartDelay::new(self.settings.start_delay);
        let mut markers = Markers::new(Instant::now());
        let mut search: Option<MarkerSearch<'_>> = None;
        let history = History::default();
        let mut changes = 0;
        let mut exit = Exit::Drained;
        while !shutdown.drain.is_cancelled() {
            let polled = tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                now_changed = self.consumer.assignment_changed(changes) => {
                    changes = now_changed;
                    let now = Instant::now();
                    start_delay.assignment_changed(now, self.consumer.owns_any());
                    markers.assignment_changed(now);
                    search = None;
                    continue;
                }
                () = start_delay.wait() => {
                    start_delay.done();
                    self.consumer.open();
                    continue;
                }
                polled = self.consumer.poll() => polled,
                found = async { search.as_mut().expect("a search is running").await }, if search.is_some() => {
                    search = None;
                    for position in found.map_err(|partitions| markers.again(&partitions)).unwrap_or_default() {
                        self.commit_past_markers(position, shutdown).await?;
                    }
                    continue;
                }
                () = until(markers.due()), if search.is_none() => {
                    search = Some(Box::pin(self.search_markers(markers.take(Instant::now()))));
                    continue;
                }
            };
            match polled {
                Polled::Message(message) => {
                    // The result of a search is valid only until a message is processed.
                    search = None;
                    let Some(lost) = self.consumer.begin(message.position.partition) else {
                        continue;
                    };
                    let flow = Flow::new(self, message, lost, shutdown.drain.clone(), &history);
                    match self.process(flow, shutdown).await? {
                        Some(MessageOutcome::Released) => exit = Exit::Released,
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
        Ok(exit)
    }

    /// Processes a message and counts it. `None` if the processing was aborted.
    async fn process(
        &self,
        flow: Flow<'_, R>,
        shutdown: &Shutdown,
    ) -> Result<Option<MessageOutcome>, ServiceError> {
        let task = flow.name();
        let begin = Instant::now();
        self.activity.send_replace(Activity::Busy { task: task.clone() });
        self.metrics.message_begun(unix_time().as_secs_f64());
        let ended = self.poll_while_processing(&flow, &task, shutdown).await;
        let outcome = match &ended {
            Ok(Some(ended)) => ended.label(),
            Ok(None) | Err(_) => "aborted",
        };
        self.metrics.message_ended(outcome, begin.elapsed());
        if matches!(ended, Ok(None | Some(MessageOutcome::Released)) | Err(_)) {
            flow.release(RELEASE_LIMIT).await;
        }
        if outcome == "aborted" {
            tracing::warn!(
                task_uuid = task,
                "Aborted; the task stays uncommitted for another worker"
            );
        }
        self.consumer.end();
        ended
    }

    /// Polls while a message is processed. `None` if the processing must be aborted.
    async fn poll_while_processing(
        &self,
        flow: &Flow<'_, R>,
        task: &str,
        shutdown: &Shutdown,
    ) -> Result<Option<MessageOutcome>, ServiceError> {
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
            handle_while_closed(polled)?;
        }
    }

    /// Searches partitions whose only lag is transaction markers; returns the partitions if that fails.
    async fn search_markers(&self, partitions: Vec<i32>) -> Result<Vec<Position>, Vec<i32>> {
        let found = self.consumer.trailing(partitions.clone()).await;
        found.map_err(|error| {
            tracing::debug!(%error, "Could not search for transaction markers");
            partitions
        })
    }

    /// Commits the end of a partition that has no message before it. Skipping this loses nothing.
    async fn commit_past_markers(&self, position: Position, shutdown: &Shutdown) -> Result<(), ServiceError> {
        if self.consumer.begin(position.partition).is_none() {
            return Ok(());
        }
        let no_record = OffsetMetadata::default();
        let mut commit = pin!(self.consumer.commit(position, &no_record));
        loop {
            let polled = tokio::select! {
                biased;
                committed = &mut commit => {
                    match committed {
                        Ok(()) => tracing::info!(%position, "Committed an offset past transaction markers"),
                        Err(CommitError::Lost | CommitError::NoTopic) => {}
                        Err(CommitError::Fatal(error)) => return Err(ServiceError::Kafka(error)),
                    }
                    break;
                }
                () = shutdown.drain.cancelled() => break,
                polled = self.consumer.poll() => polled,
            };
            handle_while_closed(polled)?;
        }
        self.consumer.end();
        self.consumer.open();
        Ok(())
    }
}

/// Handles a poll result while no message may be processed.
fn handle_while_closed(polled: Polled) -> Result<(), ServiceError> {
    match polled {
        // The consumer delivers neither until it is opened.
        Polled::Message(_) | Polled::EndOfPartition(_) => Ok(()),
        Polled::Fatal(error) => Err(ServiceError::Kafka(error)),
        Polled::Refused(refusal) => Err(ServiceError::Refused(refusal)),
    }
}

/// Waits until `time`; forever if it is `None`.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
