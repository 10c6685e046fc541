//! Processes one message, from consuming it to committing it.
//!
//! Nothing is published unless this member still owns the message's partition: if the broker has not confirmed the
//! ownership for a third of `session.timeout.ms`, it is confirmed first, so a worker that was frozen publishes nothing
//! stale.

mod publish;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use separation_contract::api_task::FailureCode;
use separation_contract::message::{Malformed, requeue_value};
use separation_contract::offset_metadata::OffsetMetadata;
use tokio_util::sync::CancellationToken;

use super::drain::{RunningTask, expected_rest};
use super::failure::{FailureDecision, decide};
use super::outcome::MessageOutcome;
use super::record::Record;
use super::{Service, ServiceError};
use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::faults;
use crate::kafka::{CommitError, CommittedState, Consumer, Message, Position};
use crate::work::{
    FailureReport, Finished, Role, WorkContext, WorkError, WorkSupervisor, retry_transient, retry_while_held,
};

/// How long canceled or overdue work may take to stop by itself.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Time limit of one try to report a failure: three webhook requests of 30 s, and storage.
const FAILURE_REPORT_LIMIT: Duration = Duration::from_secs(150);

/// Pause before a step that must succeed is retried.
const PAUSE: Duration = Duration::from_secs(1);

/// The processing of one message.
pub(super) struct Flow<'s, R> {
    service: &'s Service<R>,
    message: Message,
    /// Position of the message, as `topic/partition@offset`.
    full_position: String,
    /// Canceled when the message's partition is lost.
    lost: CancellationToken,
    /// Canceled when the worker is asked to stop.
    drain: CancellationToken,
    /// When the processing began.
    begun: Instant,
    /// The metadata committed with the message's own offset.
    record: Record<'s, Consumer>,
    history: &'s History,
}

/// The messages that this worker has processed.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The result that was published last, of the running message or an earlier one: the position of its task's message,
    /// and its JSON without the start of the attempt.
    published: RefCell<Option<(Position, String)>>,
    /// How long the last task took.
    last: Cell<Option<Duration>>,
}

/// Why processing ends early.
enum Stop {
    /// This member no longer owns the message's partition.
    Lost,
    /// The message's topic was deleted.
    NoTopic,
    /// The worker was asked to stop and leaves the message to another one, for this reason.
    Released(&'static str),
    /// The client cannot continue.
    Fatal(ServiceError),
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Lost => Self::Lost,
            CommitError::NoTopic => Self::NoTopic,
            CommitError::Fatal(error) => Self::Fatal(ServiceError::Kafka(error)),
        }
    }
}

impl<'s, R: Role> Flow<'s, R> {
    pub(super) fn new(
        service: &'s Service<R>,
        message: Message,
        lost: CancellationToken,
        drain: CancellationToken,
        history: &'s History,
    ) -> Self {
        let settings = &service.settings;
        Self {
            record: Record::new(&service.consumer, message.position, settings.progress_interval),
            full_position: format!("{}/{}", settings.topic, message.position),
            service,
            message,
            lost,
            drain,
            begun: Instant::now(),
            history,
        }
    }

    /// The message's task id, or its position if it has none.
    pub(super) fn name(&self) -> String {
        match self.service.role.parse(self.message.value.as_deref()) {
            Ok(message) => self.service.role.task(&message).0.to_string(),
            Err(Malformed {
                known: Some((task, _)),
                ..
            }) => task.to_string(),
            Err(_) => self.message.position.to_string(),
        }
    }

    /// Processes the message and logs its outcome.
    pub(super) async fn run(&self) -> Result<MessageOutcome, ServiceError> {
        let task = self.name();
        faults::begin(&task);
        tracing::info!(
            task_uuid = task,
            position = %self.message.position,
            trace_id = self.message.trace.trace_id(),
            "{}",
            R::RECEIVED
        );
        faults::point("received").await;
        match self.steps_and_record(&task).await {
            Ok(ended) => Ok(ended),
            Err(Stop::Fatal(error)) => Err(error),
            Err(Stop::NoTopic) => {
                tracing::error!(
                    task_uuid = task,
                    topic = self.service.settings.topic,
                    "The topic was deleted while its message was processed; there is nothing to commit"
                );
                Ok(MessageOutcome::TopicDeleted)
            }
            Err(Stop::Released(reason)) => {
                self.service.producer.purge();
                tracing::warn!(
                    task_uuid = task,
                    reason,
                    "Stopping before the task is done; it stays uncommitted for another worker"
                );
                Ok(MessageOutcome::Released)
            }
            Err(Stop::Lost) => {
                self.service.producer.purge();
                tracing::warn!(
                    task_uuid = task,
                    "The message's partition is no longer assigned to this worker; the outcome here is dropped"
                );
                Ok(MessageOutcome::Lost)
            }
        }
    }

    /// Leaves the message to another worker because this one stops. Commits that this attempt does not count, if that
    /// succeeds within `limit`.
    pub(super) async fn release(&self, limit: Duration) {
        match tokio::time::timeout(limit, self.record.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Could not undo the attempt count"),
            Err(_) => tracing::warn!("Could not undo the attempt count in time"),
        }
    }

    /// Runs the steps while changed metadata is committed. Ends early when the worker is asked to stop and the task takes
    /// too long, or a dependency refuses the worker: waiting for the dependency has no time limit.
    async fn steps_and_record(&self, task: &str) -> Result<MessageOutcome, Stop> {
        let drained = async {
            self.drain.cancelled().await;
            self.record.drain();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            ended = self.steps(task) => ended,
            error = self.record.write_changes() => Err(error.into()),
            never = drained => match never {},
            () = self.held_while_draining() => Err(Stop::Released("a dependency refuses this worker")),
            () = self.drain_exceeded() => Err(Stop::Released("it takes longer than DRAIN_SECONDS")),
        }
    }

    /// Returns once the worker was asked to stop and the task takes too long: immediately if that is expected, else when
    /// the time has passed. Never once publishing began: the rest is short, and another worker would publish again.
    async fn drain_exceeded(&self) {
        self.drain.cancelled().await;
        let settings = &self.service.settings;
        let rest = expected_rest(RunningTask {
            elapsed: self.begun.elapsed(),
            percent: self.record.percent(),
            last: self.history.last.get(),
            limit: settings.task_timeout,
        });
        if rest <= settings.drain {
            tokio::time::sleep(settings.drain).await;
        }
        if self.record.is_ending() {
            std::future::pending::<()>().await;
        }
    }

    /// Records the dependency that refuses this worker whenever that changes. Returns once the worker is asked to stop
    /// while a dependency refuses it.
    async fn held_while_draining(&self) {
        let holds = self.service.metrics.holds();
        let mut changes = holds.changes();
        loop {
            let held = holds.list().into_iter().next();
            let is_held = held.is_some();
            self.record.hold(held);
            tokio::select! {
                () = changes.next() => {}
                () = self.drain.cancelled(), if is_held => return,
            }
        }
    }

    async fn steps(&self, task: &str) -> Result<MessageOutcome, Stop> {
        let role = &self.service.role;
        let (committed, confirmed_at) = match self.service.consumer.confirmed(self.message.position) {
            Some((record, at)) => (record, Some(at)),
            None => match self.read_record().await? {
                Some(record) => (record, None),
                None => return Ok(MessageOutcome::Moved),
            },
        };
        self.record.load(committed, confirmed_at);
        let deadline = Instant::now() + self.service.settings.task_timeout;
        let (context, mut supervisor) = self.work_context(deadline);
        let message = match role.parse(self.message.value.as_deref()) {
            Ok(message) => message,
            Err(malformed) => return self.report_malformed(task, &malformed).await,
        };
        let completed = retry_transient(&context, "find_completed", || role.find_completed(&message));
        match self.drive(&mut supervisor, &context, completed).await? {
            Ok(Some(finished)) => {
                tracing::info!(
                    task_uuid = task,
                    "The task is already completed; running only the remaining steps"
                );
                faults::point("duplicate").await;
                self.complete(task, &message, &finished, MessageOutcome::Duplicate)
                    .await?;
                return Ok(MessageOutcome::Duplicate);
            }
            Ok(None) => {}
            Err(error) => return self.handle_failure(task, &message, &error).await,
        }
        let attempts = self.record.attempts();
        if attempts >= self.service.settings.max_attempts {
            return self.give_up_crashing(task, &message, attempts).await;
        }
        if attempts == 0 {
            self.record_queue_wait();
        }
        self.record.start();
        if confirmed_at.is_none() {
            self.record.write_changed().await?;
        }
        // Otherwise the commit runs in parallel with the first milliseconds of the work. A crash in that time may not be
        // counted, but only once: the message is then its next worker's first, whose commit is awaited.
        faults::point("attempt_recorded").await;
        let work = retry_while_held(&context, "work", || role.work(&message, &context));
        match self.drive(&mut supervisor, &context, work).await? {
            Ok(finished) => {
                faults::point("worked").await;
                self.complete(task, &message, &finished, MessageOutcome::Done)
                    .await?;
                if !self.record.was_held() {
                    self.history.last.set(Some(self.begun.elapsed()));
                }
                Ok(MessageOutcome::Done)
            }
            Err(error) => self.handle_failure(task, &message, &error).await,
        }
    }

    /// Records how long the message was queued: no time if the producer's clock is ahead of this worker's.
    fn record_queue_wait(&self) {
        let published = self.message.timestamp_ms.and_then(|ms| u64::try_from(ms).ok());
        if let Some(published) = published {
            let wait = unix_time().saturating_sub(Duration::from_millis(published));
            self.service.metrics.queued(wait);
        }
    }

    /// Sends a task that crashed its workers to the dead-letter topic.
    async fn give_up_crashing(
        &self,
        task: &str,
        message: &R::Message,
        attempts: u32,
    ) -> Result<MessageOutcome, Stop> {
        let reason = format!("the task crashed its worker {attempts} times");
        tracing::error!(
            task_uuid = task,
            attempts,
            "The task crashed its workers; sending it to the dead-letter topic"
        );
        self.dead_letter("worker_crashes", &reason).await?;
        let failure = self.failure(message, &reason, FailureCode::WorkerCrashed);
        self.report_failure(task, failure).await?;
        Ok(MessageOutcome::DeadLetter)
    }

    fn failure<'a>(
        &'a self,
        message: &'a R::Message,
        reason: &'a str,
        code: FailureCode,
    ) -> FailureReport<'a> {
        let (task_uuid, hook_url) = self.service.role.task(message);
        FailureReport {
            task_uuid,
            hook_url,
            v1: self.service.role.api_task(message),
            reason,
            code,
            message: &self.full_position,
        }
    }

    fn work_context(&self, deadline: Instant) -> (WorkContext, WorkSupervisor) {
        WorkContext::new(deadline, self.message.trace.child(), self.service.metrics.clone())
    }

    async fn complete(
        &self,
        task: &str,
        message: &R::Message,
        finished: &Finished,
        outcome: MessageOutcome,
    ) -> Result<(), Stop> {
        self.publish_result(finished.publish.as_ref()).await?;
        faults::point("published").await;
        // Of a duplicate, a failure, or one that waited for a dependency, the time is not that of a task.
        let is_typical = finished.success && outcome == MessageOutcome::Done && !self.record.was_held();
        let took = is_typical.then(|| self.begun.elapsed());
        self.commit(task, finished.success, took).await?;
        faults::point("committed").await;
        self.service.role.clean_up(message, finished).await;
        faults::point("cleaned").await;
        Ok(())
    }

    async fn handle_failure(
        &self,
        task: &str,
        message: &R::Message,
        error: &WorkError,
    ) -> Result<MessageOutcome, Stop> {
        let value = self.message.value.as_deref().unwrap_or_default();
        let (count, next) = requeue_value(value).unwrap_or((u32::MAX, String::new()));
        let settings = &self.service.settings;
        match decide(error.class(), settings.policy, count - 1) {
            FailureDecision::LeaveUncommitted => Err(Stop::Lost),
            FailureDecision::Requeue => {
                tracing::warn!(
                    task_uuid = task,
                    error = %error,
                    retry_count = count,
                    "Task failed; republishing it to the end of its topic"
                );
                self.publish(&settings.topic, next.as_bytes(), &[]).await?;
                self.commit(task, false, None).await?;
                Ok(MessageOutcome::Requeued)
            }
            FailureDecision::Report => {
                tracing::error!(task_uuid = task, error = %error, class = ?error.class(), "Task failed");
                let reason = error.message();
                if R::DEAD_LETTERS_FAILURES {
                    self.dead_letter("failed", &reason).await?;
                }
                let failure = self.failure(message, &reason, error.code());
                let finished = self.report_failure(task, failure).await?;
                self.service.role.clean_up(message, &finished).await;
                Ok(MessageOutcome::Failed)
            }
        }
    }

    async fn report_malformed(&self, task: &str, malformed: &Malformed) -> Result<MessageOutcome, Stop> {
        let reason = malformed.error.to_string();
        tracing::error!(
            task_uuid = task,
            reason,
            "The message is malformed; sending it to the dead-letter topic"
        );
        self.dead_letter("malformed", &reason).await?;
        if let Some((task_uuid, hook_url)) = &malformed.known {
            let failure = FailureReport {
                task_uuid,
                hook_url: hook_url.as_deref(),
                v1: None,
                reason: &reason,
                code: FailureCode::Internal,
                message: &self.full_position,
            };
            self.report_failure(task, failure).await?;
        } else {
            self.commit(task, false, None).await?;
        }
        Ok(MessageOutcome::DeadLetter)
    }

    /// Reports the failure of a message that is given up, and commits it.
    async fn report_failure(&self, task: &str, failure: FailureReport<'_>) -> Result<Finished, Stop> {
        let finished = loop {
            // The work's own deadline may have passed.
            let (context, mut supervisor) = self.work_context(Instant::now() + FAILURE_REPORT_LIMIT);
            let reported = self.service.role.report_failure(failure, &context);
            match self.drive(&mut supervisor, &context, reported).await? {
                Ok(finished) => break finished,
                Err(error) if is_retryable(error.class()) => {
                    tracing::warn!(task_uuid = task, error = %error, "Cannot report the failure; retrying");
                    self.pause(PAUSE).await?;
                }
                Err(error) => {
                    tracing::error!(task_uuid = task, error = %error, "Cannot report the failure");
                    break Finished::unpublished(false);
                }
            }
        };
        self.publish_result(finished.publish.as_ref()).await?;
        faults::point("failure_reported").await;
        self.commit(task, false, None).await?;
        Ok(finished)
    }

    /// Runs a step of the role, records its progress, and answers its requests to confirm the partition ownership.
    async fn drive<T>(
        &self,
        supervisor: &mut WorkSupervisor,
        context: &WorkContext,
        step: impl Future<Output = Result<T, WorkError>>,
    ) -> Result<Result<T, WorkError>, Stop> {
        let mut step = pin!(step);
        loop {
            // Moves later while the work is on hold.
            let overdue_at = context.ends_at() + STOP_LIMIT;
            tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                Some(answer) = supervisor.requests.recv() => {
                    let confirmed = self.confirm().await;
                    // Fails if the step was dropped in the meantime.
                    let _ = answer.send(confirmed.is_ok());
                    if let Err(Stop::Fatal(error)) = confirmed {
                        return Err(Stop::Fatal(error));
                    }
                }
                Ok(()) = supervisor.progress.changed() => {
                    self.record.progress(*supervisor.progress.borrow_and_update());
                }
                () = self.lost.cancelled() => {
                    supervisor.cancel();
                    let _ = tokio::time::timeout(STOP_LIMIT, &mut step).await;
                    return Err(Stop::Lost);
                }
                () = tokio::time::sleep_until(overdue_at.into()) => {
                    if context.ends_at() + STOP_LIMIT > overdue_at {
                        continue;
                    }
                    supervisor.cancel();
                    return Ok(Err(WorkError::new(ErrorClass::TimedOut, "not done by the deadline")));
                }
            }
        }
    }

    /// Makes sure that this member still owns the message's partition: asks the broker, unless it confirmed that within
    /// a third of `session.timeout.ms`.
    async fn confirm(&self) -> Result<(), Stop> {
        if self.lost.is_cancelled() {
            return Err(Stop::Lost);
        }
        let fresh = self.service.settings.timings.session_timeout / 3;
        Ok(self.record.confirm(fresh).await?)
    }

    /// The metadata committed with the message's offset. `None` if its partition is now read from another offset.
    async fn read_record(&self) -> Result<Option<OffsetMetadata>, Stop> {
        loop {
            match self.service.consumer.record(&self.message).await {
                Ok(CommittedState::Record(record)) => return Ok(Some(record)),
                Ok(CommittedState::Moved) => return Ok(None),
                Ok(CommittedState::NotBelieved) => {
                    tracing::warn!(position = %self.message.position, "Kafka reports no committed offset; asking again");
                }
                Err(error) => {
                    tracing::warn!(%error, "Cannot read the committed offset of the message; asking again");
                }
            }
            self.pause(PAUSE).await?;
        }
    }

    async fn commit(&self, task: &str, success: bool, took: Option<Duration>) -> Result<(), Stop> {
        let (consumer, position) = (&self.service.consumer, self.message.position.next());
        // If the next message follows this one in the partition, the same commit confirms its ownership.
        let follows =
            |next: &Position| next.partition == position.partition && next.offset >= position.offset;
        let next = consumer.prefetch().filter(follows).unwrap_or(position);
        self.record.commit_next(next, took).await?;
        if success {
            tracing::info!(task_uuid = task, %position, "Offset committed successfully");
        } else {
            tracing::warn!(task_uuid = task, %position, "Offset committed despite error");
        }
        Ok(())
    }

    async fn pause(&self, pause: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.lost.cancelled() => Err(Stop::Lost),
        }
    }
}

/// Whether reporting a failure may succeed later.
fn is_retryable(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::TimedOut
    )
}
