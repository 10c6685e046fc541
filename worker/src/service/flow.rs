//! One message from taking it to committing it.
//!
//! Nothing becomes visible unless the message is still ours: a claim that the broker has not confirmed for a third of
//! a session is confirmed again first, so that a worker that was frozen shows nothing stale.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use separation_contract::message::{MAX_MESSAGE_BYTES, Malformed, TaskId, TaskResult, put_back};
use separation_contract::offset_metadata::OffsetMetadata;
use tokio_util::sync::CancellationToken;

use super::failure::{Verdict, verdict};
use super::record::Record;
use super::{Service, ServiceError};
use crate::error::ErrorClass;
use crate::faults;
use crate::kafka::{CommitError, Found, Header, KAFKA_FIX, Message, Place};
use crate::telemetry::TraceContext;
use crate::work::{Claim, ClaimedWork, Dependency, Finished, HoldableStep, Refusal, Role, WorkError};

/// How long work whose claim ended may take to end by itself.
const LETTING_GO: Duration = Duration::from_secs(30);

/// How long one try to tell a caller may take: three webhooks of 30 s, and storage.
const REFUSAL_LIMIT: Duration = Duration::from_secs(150);

/// Pause before a step that must succeed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause before something is published again: doubled up to half of the 30 s within which a task goes on
/// after a refusal ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How one message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its work is done and committed.
    Done,
    /// Its work was found done; only the rest was left to do.
    Recognised,
    /// It failed; its caller was told, and it is committed.
    Failed,
    /// It failed, and waits at the tail of its topic.
    PutBack,
    /// It is for others to look at, and committed.
    DeadLetter,
    /// It belongs to another worker.
    Lost,
    /// Its partition is read again from another offset.
    Moved,
    /// Its topic was deleted.
    TopicDeleted,
    /// The worker was asked to stop while a dependency refused it; the message is left to another worker.
    Released,
}

impl Ended {
    /// The word for it in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Recognised => "recognised",
            Self::Failed => "failed",
            Self::PutBack => "put_back",
            Self::DeadLetter => "dead_letter",
            Self::Lost => "lost",
            Self::Moved => "moved",
            Self::TopicDeleted => "topic_deleted",
            Self::Released => "released",
        }
    }
}

/// One message on its way.
pub(super) struct Flow<'s, R> {
    service: &'s Service<R>,
    message: Message,
    /// Cancelled when the message's partition is lost.
    lost: CancellationToken,
    /// Cancelled when the worker is asked to stop.
    drain: CancellationToken,
    /// The record beside the message's own offset.
    record: Record<'s>,
    /// The result that this worker published last, of this message or one before.
    published: &'s RefCell<Option<Published>>,
}

/// A result that the brokers have: of the message at a place, as it reads.
pub(super) type Published = (Place, String);

/// Why a flow ends early.
enum Stop {
    /// The message is not ours any more.
    Lost,
    /// The message's topic does not exist any more.
    NoTopic,
    /// The worker was asked to stop, and a dependency refuses it.
    Released,
    /// The client cannot go on.
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
        published: &'s RefCell<Option<Published>>,
    ) -> Self {
        Self {
            record: Record::new(&service.consumer, message.place),
            service,
            message,
            lost,
            drain,
            published,
        }
    }

    /// What to call the message: its task, or its place where it names none.
    pub(super) fn name(&self) -> String {
        match self.service.role.parse(self.message.value.as_deref()) {
            Ok(message) => self.service.role.task(&message).0.to_string(),
            Err(Malformed {
                known: Some((task, _)),
                ..
            }) => task.to_string(),
            Err(_) => self.message.place.to_string(),
        }
    }

    /// Works on the message to its end.
    pub(super) async fn run(&self) -> Result<Ended, ServiceError> {
        let task = self.name();
        faults::begin(&task);
        tracing::info!(
            task_uuid = task,
            place = %self.message.place,
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
                    "The topic was deleted while its message was worked on; nothing is left to commit"
                );
                Ok(Ended::TopicDeleted)
            }
            Err(Stop::Released) => {
                self.service.producer.purge();
                tracing::warn!(
                    task_uuid = task,
                    "Asked to stop while a dependency refuses; the task is left uncommitted for another worker"
                );
                Ok(Ended::Released)
            }
            Err(Stop::Lost) => {
                self.service.producer.purge();
                tracing::warn!(
                    task_uuid = task,
                    "The message went to another worker; its outcome here is dropped"
                );
                Ok(Ended::Lost)
            }
        }
    }

    /// Leaves the message to another worker because this one is to end: the attempt is taken back, as far as a commit
    /// succeeds within `limit`.
    pub(super) async fn release(&self, limit: Duration) {
        self.record.drain();
        self.record.hold(None);
        match tokio::time::timeout(limit, self.record.write_changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Could not take the attempt back"),
            Err(_) => tracing::warn!("Could not take the attempt back in time"),
        }
    }

    /// The steps, while changes of the record are committed. Ends early when the worker is asked to stop while a dependency
    /// refuses it: waiting for that could take without end.
    async fn steps_and_record(&self, task: &str) -> Result<Ended, Stop> {
        let drained = async {
            self.drain.cancelled().await;
            self.record.drain();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            ended = self.steps(task) => ended,
            error = self.record.write_changes() => Err(error.into()),
            never = drained => match never {},
            () = self.held_at_the_end() => Err(Stop::Released),
        }
    }

    /// Records what refuses this worker, whenever that changes, until it is asked to stop and something does.
    async fn held_at_the_end(&self) {
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

    async fn steps(&self, task: &str) -> Result<Ended, Stop> {
        let role = &self.service.role;
        let confirmed = self.service.consumer.confirmed(self.message.place);
        let found = match confirmed {
            Some(_) => OffsetMetadata::default(),
            None => match self.found_record().await? {
                Some(record) => record,
                None => return Ok(Ended::Moved),
            },
        };
        self.record.found(found, confirmed);
        let (claim, mut claimed) = self.claim(Instant::now() + self.service.settings.task_timeout);
        let message = match role.parse(self.message.value.as_deref()) {
            Ok(message) => message,
            Err(malformed) => {
                return self.refuse_malformed(task, &malformed).await;
            }
        };
        let recognised = crate::work::retrying(&claim, "recognise", || role.recognise(&message));
        match self.drive(&mut claimed, &claim, recognised).await? {
            Ok(Some(finished)) => {
                tracing::info!(
                    task_uuid = task,
                    "Found the task's work done; only the rest is left to do"
                );
                faults::point("recognised").await;
                self.conclude(task, &message, &finished).await?;
                return Ok(Ended::Recognised);
            }
            Ok(None) => {}
            Err(error) => {
                return self.fail(task, &message, &error).await;
            }
        }
        let attempts = self.record.attempts();
        if attempts >= self.service.settings.max_attempts {
            let reason = format!("the task ended its worker {attempts} times");
            tracing::error!(
                task_uuid = task,
                attempts,
                "The task ends its workers; it becomes a dead letter"
            );
            self.dead_letter("ends_its_worker", &reason).await?;
            self.refuse(task, role.task(&message), &reason).await?;
            return Ok(Ended::DeadLetter);
        }
        self.record.start();
        if confirmed.is_none() {
            self.record.write_changed().await?;
        }
        // Otherwise the commit goes on beside the work, for brokers take some milliseconds. A task that ends its worker
        // within that time is the first of its partition for the next worker, which waits for the commit.
        faults::point("attempt_noted").await;
        match self
            .drive(
                &mut claimed,
                &claim,
                crate::work::holding(&claim, "work", || role.work(&message, &claim)),
            )
            .await?
        {
            Ok(finished) => {
                faults::point("worked").await;
                self.conclude(task, &message, &finished).await?;
                Ok(Ended::Done)
            }
            Err(error) => self.fail(task, &message, &error).await,
        }
    }

    /// Position of the message, as `topic/partition@offset`.
    fn position(&self) -> String {
        format!("{}/{}", self.service.settings.topic, self.message.place)
    }

    fn claim(&self, deadline: Instant) -> (Claim, ClaimedWork) {
        Claim::new(deadline, self.message.trace.child(), self.service.metrics.clone())
    }

    /// Publishes, commits and cleans up.
    async fn conclude(&self, task: &str, message: &R::Message, finished: &Finished) -> Result<(), Stop> {
        self.publish_result(finished.publish.as_ref()).await?;
        faults::point("published").await;
        self.commit(task, finished.success).await?;
        faults::point("committed").await;
        self.service.role.clean_up(message, finished).await;
        faults::point("cleaned").await;
        Ok(())
    }

    async fn fail(&self, task: &str, message: &R::Message, error: &WorkError) -> Result<Ended, Stop> {
        let value = self.message.value.as_deref().unwrap_or_default();
        let (count, next) = put_back(value).unwrap_or((u32::MAX, String::new()));
        let settings = &self.service.settings;
        match verdict(error.class(), settings.policy, count - 1) {
            Verdict::Leave => Err(Stop::Lost),
            Verdict::PutBack => {
                tracing::warn!(task_uuid = task, error = %error, retry_count = count, "Task failed; it goes to the end of its topic");
                self.publish(&settings.topic, next.as_bytes(), &[]).await?;
                self.commit(task, false).await?;
                Ok(Ended::PutBack)
            }
            Verdict::GiveUp => {
                tracing::error!(task_uuid = task, error = %error, class = ?error.class(), "Task failed");
                let reason = error.message();
                if R::KEEPS_FAILURES {
                    self.dead_letter("failed", &reason).await?;
                }
                let finished = self
                    .refuse(task, self.service.role.task(message), &reason)
                    .await?;
                self.service.role.clean_up(message, &finished).await;
                Ok(Ended::Failed)
            }
        }
    }

    async fn refuse_malformed(&self, task: &str, malformed: &Malformed) -> Result<Ended, Stop> {
        let reason = malformed.error.to_string();
        tracing::error!(
            task_uuid = task,
            reason,
            "The message cannot be worked on; it becomes a dead letter"
        );
        self.dead_letter("malformed", &reason).await?;
        if let Some((task_uuid, hook_url)) = &malformed.known {
            self.refuse(task, (task_uuid, hook_url.as_deref()), &reason)
                .await?;
        } else {
            self.commit(task, false).await?;
        }
        Ok(Ended::DeadLetter)
    }

    /// Tells the caller of a message that is given up, and commits it.
    async fn refuse(
        &self,
        task: &str,
        (task_uuid, hook_url): (&TaskId, Option<&str>),
        reason: &str,
    ) -> Result<Finished, Stop> {
        let refusal = Refusal {
            task_uuid,
            hook_url,
            reason,
            message: &self.position(),
        };
        let finished = loop {
            // The work's own deadline may be over.
            let (claim, mut claimed) = self.claim(Instant::now() + REFUSAL_LIMIT);
            let refused = self.service.role.refuse(refusal, &claim);
            match self.drive(&mut claimed, &claim, refused).await? {
                Ok(finished) => break finished,
                Err(error) if is_passing(error.class()) => {
                    tracing::warn!(task_uuid = task, error = %error, "Cannot tell the caller yet");
                    self.pause(PAUSE).await?;
                }
                Err(error) => {
                    tracing::error!(task_uuid = task, error = %error, "Cannot tell the caller");
                    break Finished {
                        publish: None,
                        success: false,
                    };
                }
            }
        };
        self.publish_result(finished.publish.as_ref()).await?;
        faults::point("refused").await;
        self.commit(task, false).await?;
        Ok(finished)
    }

    /// Runs a step of the role, and answers its questions about the claim meanwhile.
    async fn drive<T>(
        &self,
        claimed: &mut ClaimedWork,
        claim: &Claim,
        step: impl Future<Output = Result<T, WorkError>>,
    ) -> Result<Result<T, WorkError>, Stop> {
        let mut step = pin!(step);
        loop {
            // Moves on while the work is on hold.
            let overdue_at = claim.ends_at() + LETTING_GO;
            tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                Some(answer) = claimed.requests.recv() => {
                    let confirmed = self.confirm().await;
                    // Nobody listens if the step was dropped meanwhile.
                    let _ = answer.send(confirmed.is_ok());
                    if let Err(Stop::Fatal(error)) = confirmed {
                        return Err(Stop::Fatal(error));
                    }
                }
                () = self.lost.cancelled() => {
                    claimed.cancel();
                    let _ = tokio::time::timeout(LETTING_GO, &mut step).await;
                    return Err(Stop::Lost);
                }
                () = tokio::time::sleep_until(overdue_at.into()) => {
                    if claim.ends_at() + LETTING_GO > overdue_at {
                        continue;
                    }
                    claimed.cancel();
                    return Ok(Err(WorkError::new(ErrorClass::TimedOut, "not done by the deadline")));
                }
            }
        }
    }

    /// Makes sure that the message is still this member's: asks the broker if that was not confirmed for a third of a
    /// session.
    async fn confirm(&self) -> Result<(), Stop> {
        if self.lost.is_cancelled() {
            return Err(Stop::Lost);
        }
        let fresh = self.service.settings.timings.session_timeout / 3;
        Ok(self.record.confirm(fresh).await?)
    }

    /// The record that is committed beside the message's offset. Nothing if its partition is read from another one.
    async fn found_record(&self) -> Result<Option<OffsetMetadata>, Stop> {
        loop {
            match self.service.consumer.record(&self.message).await {
                Ok(Found::Record(record)) => return Ok(Some(record)),
                Ok(Found::Moved) => return Ok(None),
                Ok(Found::Doubted) => {
                    tracing::warn!(place = %self.message.place, "Kafka reports no committed offset; asking again");
                }
                Err(error) => {
                    tracing::warn!(%error, "Cannot read the committed offset of the message; asking again");
                }
            }
            self.pause(PAUSE).await?;
        }
    }

    async fn publish_result(&self, result: Option<&TaskResult>) -> Result<(), Stop> {
        let Some(result) = result else {
            return Ok(());
        };
        let result = TaskResult {
            task_message: Some(self.position()),
            ..result.clone()
        };
        let this = (self.message.place, result.to_json());
        if self.published.borrow().as_ref() == Some(&this) {
            // The partition was lost before the commit and came back to this worker.
            tracing::info!(place = %this.0, "The result is published already");
            return Ok(());
        }
        let topic = &self.service.settings.result_topic;
        self.publish(topic, this.1.as_bytes(), &[]).await?;
        self.published.replace(Some(this));
        Ok(())
    }

    async fn dead_letter(&self, label: &'static str, reason: &str) -> Result<(), Stop> {
        if self.record.has_letter() {
            tracing::info!(place = %self.message.place, "The message is in the dead-letter topic already");
            return Ok(());
        }
        let value = self.message.value.as_deref().unwrap_or_default();
        let kept = &value[..value.len().min(MAX_MESSAGE_BYTES)];
        let place = self.message.place;
        let header = |name, value: String| Header { name, value };
        let mut headers = vec![
            header("dead-letter-reason", reason.to_owned()),
            header("dead-letter-topic", self.service.settings.topic.clone()),
            header("dead-letter-partition", place.partition.to_string()),
            header("dead-letter-offset", place.offset.to_string()),
        ];
        if kept.len() < value.len() {
            headers.push(header("dead-letter-truncated-from", value.len().to_string()));
        }
        self.publish(&self.service.settings.dead_letter_topic, kept, &headers)
            .await?;
        self.service.metrics.dead_letter(label);
        // Telling the caller may take long, and another worker may have to go on with it.
        self.record.letter();
        self.record.write_changed().await?;
        faults::point("dead_lettered").await;
        Ok(())
    }

    /// Publishes as long as it takes and the message is ours.
    async fn publish(&self, topic: &str, value: &[u8], more: &[Header]) -> Result<(), Stop> {
        let mut headers = more.to_vec();
        headers.push(Header {
            name: TraceContext::HEADER,
            value: self.message.trace.child().to_string(),
        });
        let key = self.message.key.as_deref();
        let mut pause = PAUSE;
        let mut step = HoldableStep::new(self.service.metrics.holds(), "publish");
        loop {
            self.confirm().await?;
            let published = tokio::select! {
                published = self.service.producer.publish(topic, key, value, &headers) => published,
                () = self.lost.cancelled() => return Err(Stop::Lost),
            };
            let error = match published {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // Committing without it would lose the outcome, so that even a refusal is waited out.
            let dependency = Dependency {
                name: error
                    .dependency()
                    .unwrap_or_else(|| "kafka:unreachable".to_owned()),
                fix: KAFKA_FIX,
            };
            step.failed(&WorkError::held(dependency, error), Instant::now());
            self.pause(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn commit(&self, task: &str, success: bool) -> Result<(), Stop> {
        let (consumer, place) = (&self.service.consumer, self.message.place.next());
        // If the next message in turn follows this one, the same commit confirms that it is this member's.
        let follows = |next: &Place| next.partition == place.partition && next.offset >= place.offset;
        let next = consumer.next_in_turn().filter(follows).unwrap_or(place);
        self.record.conclude(next).await?;
        if success {
            tracing::info!(task_uuid = task, %place, "Offset committed successfully");
        } else {
            tracing::warn!(task_uuid = task, %place, "Offset committed despite error");
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

/// Whether telling a caller may succeed later.
fn is_passing(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::TimedOut
    )
}
