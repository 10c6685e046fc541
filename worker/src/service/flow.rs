//! One message from taking it to committing it.
//!
//! Nothing becomes visible unless the message is still ours: a claim that the broker has not confirmed for a third of
//! a session is confirmed anew first, so that a worker that was frozen shows nothing stale.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::{Duration, Instant};

use separation_contract::message::{MAX_MESSAGE_BYTES, Malformed, TaskResult, put_back};
use tokio_util::sync::CancellationToken;

use super::failure::{Verdict, verdict};
use super::{Service, ServiceError};
use crate::error::ErrorClass;
use crate::faults;
use crate::kafka::{Attempt, CommitError, Header, Message, Place, PublishError};
use crate::telemetry::TraceContext;
use crate::work::{Claim, ClaimedWork, Finished, Refusal, Role, WorkError};

/// How long work whose claim ended may take to end by itself.
const LETTING_GO: Duration = Duration::from_secs(30);

/// How long one try to tell a caller may take: three webhooks of 30 s, and storage.
const REFUSAL_LIMIT: Duration = Duration::from_secs(150);

/// Pause before a step that must succeed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// Its topic came anew and is read from its beginning.
    Anew,
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
            Self::Anew => "anew",
        }
    }
}

/// One message on its way.
pub(super) struct Flow<'s, R> {
    service: &'s Service<R>,
    message: Message,
    /// Cancelled when the message's partition is lost.
    lost: CancellationToken,
    /// When the broker was last asked whether the message is ours, and said so. Not at first: what was fetched before
    /// this process was frozen may be another's by now.
    confirmed_at: Cell<Option<Instant>>,
    /// What is noted beside the message's own offset.
    attempt: Cell<Attempt>,
    /// The result that this worker published last, of this message or one before.
    published: &'s RefCell<Option<Published>>,
}

/// A result that the brokers have: of the message at a place, as it reads.
pub(super) type Published = (Place, String);

/// Why a flow ends early.
enum Stop {
    /// The message is not ours any more.
    Lost,
    /// The client cannot go on.
    Fatal(ServiceError),
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Lost => Self::Lost,
            CommitError::Fatal(error) => Self::Fatal(ServiceError::Kafka(error)),
        }
    }
}

impl<'s, R: Role> Flow<'s, R> {
    pub(super) fn new(
        service: &'s Service<R>,
        message: Message,
        lost: CancellationToken,
        published: &'s RefCell<Option<Published>>,
    ) -> Self {
        Self {
            service,
            message,
            lost,
            confirmed_at: Cell::new(None),
            attempt: Cell::new(Attempt::default()),
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
    pub(super) async fn run(self) -> Result<Ended, ServiceError> {
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
        match self.steps(&task).await {
            Ok(ended) => Ok(ended),
            Err(Stop::Fatal(error)) => Err(error),
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

    async fn steps(&self, task: &str) -> Result<Ended, Stop> {
        let role = &self.service.role;
        let begun = self.service.consumer.begun(self.message.place);
        let attempt = match begun {
            Some(_) => Attempt::default(),
            None => match self.attempts().await? {
                Some(attempt) => attempt,
                None => return Ok(Ended::Anew),
            },
        };
        // A confirmation commits it again, as it stands.
        self.attempt.set(match begun {
            Some(_) => attempt.next(),
            None => attempt,
        });
        self.confirmed_at.set(begun);
        let (claim, mut claimed) = self.claim(Instant::now() + self.service.settings.task_timeout);
        let message = match role.parse(self.message.value.as_deref()) {
            Ok(message) => message,
            Err(malformed) => {
                return self.refuse_malformed(task, &malformed).await;
            }
        };
        let may_begin = attempt.0 < self.service.settings.max_attempts;
        let recognised = crate::work::retrying(&claim, "recognise", || role.recognise(&message, &claim));
        let begin = async {
            match begun {
                None if may_begin => self.begin_attempt(attempt.next()).await,
                _ => Ok(()),
            }
        };
        // Each waits for another server.
        let (recognised, noted) = tokio::join!(self.drive(&mut claimed, &claim, recognised), begin);
        noted?;
        match recognised? {
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
        if !may_begin {
            let reason = format!("the task ended its worker {} times", attempt.0);
            tracing::error!(
                task_uuid = task,
                attempts = attempt.0,
                "The task ends its workers; it becomes a dead letter"
            );
            self.dead_letter("ends_its_worker", &reason).await?;
            let (task_uuid, hook_url) = role.task(&message);
            let refusal = Refusal {
                task_uuid,
                hook_url,
                reason: &reason,
            };
            self.refuse(task, refusal).await?;
            return Ok(Ended::DeadLetter);
        }
        faults::point("attempt_noted").await;
        match self
            .drive(&mut claimed, &claim, role.work(&message, &claim))
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
                let (task_uuid, hook_url) = self.service.role.task(message);
                let refusal = Refusal {
                    task_uuid,
                    hook_url,
                    reason: &reason,
                };
                let finished = self.refuse(task, refusal).await?;
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
            let refusal = Refusal {
                task_uuid,
                hook_url: hook_url.as_deref(),
                reason: &reason,
            };
            self.refuse(task, refusal).await?;
        } else {
            self.commit(task, false).await?;
        }
        Ok(Ended::DeadLetter)
    }

    /// Tells the caller of a message that is given up, and commits it.
    async fn refuse(&self, task: &str, refusal: Refusal<'_>) -> Result<Finished, Stop> {
        let finished = loop {
            // The work's own deadline may be over.
            let (claim, mut claimed) = self.claim(Instant::now() + REFUSAL_LIMIT);
            let refused = self.service.role.refuse(refusal, &claim);
            match self.drive(&mut claimed, &claim, refused).await? {
                Ok(finished) => break finished,
                Err(error) if matches!(error.class(), ErrorClass::Transient | ErrorClass::TimedOut) => {
                    tracing::warn!(task_uuid = task, error = %error, "Cannot tell the caller yet");
                    self.pause().await?;
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
        let overdue = tokio::time::sleep_until((claim.deadline + LETTING_GO).into());
        let mut overdue = pin!(overdue);
        loop {
            tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                Some(answer) = claimed.requests.recv() => {
                    let confirmed = self.confirm_if_stale().await;
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
                () = &mut overdue => {
                    claimed.cancel();
                    return Ok(Err(WorkError::new(ErrorClass::TimedOut, "not done by the deadline")));
                }
            }
        }
    }

    /// Asks the broker whether the message is still ours, by committing what is committed already.
    async fn confirm(&self) -> Result<(), Stop> {
        // A session is at least that long from here on.
        let asked_at = Instant::now();
        self.service
            .consumer
            .commit(self.message.place, self.attempt.get())
            .await?;
        self.confirmed_at.set(Some(asked_at));
        Ok(())
    }

    async fn confirm_if_stale(&self) -> Result<(), Stop> {
        if self.lost.is_cancelled() {
            return Err(Stop::Lost);
        }
        let fresh = self.service.settings.timings.session_timeout / 3;
        let confirmed_at = self.confirmed_at.get();
        if confirmed_at.is_none_or(|confirmed_at| confirmed_at.elapsed() > fresh) {
            self.confirm().await?;
        }
        Ok(())
    }

    async fn attempts(&self) -> Result<Option<Attempt>, Stop> {
        loop {
            match self.service.consumer.attempts(self.message.place).await {
                Ok(attempt) => return Ok(attempt),
                Err(error) => {
                    tracing::warn!(%error, "Cannot read how often the task was begun; asking again");
                }
            }
            self.pause().await?;
        }
    }

    async fn begin_attempt(&self, attempt: Attempt) -> Result<(), Stop> {
        self.attempt.set(attempt);
        self.confirm().await
    }

    async fn publish_result(&self, result: Option<&TaskResult>) -> Result<(), Stop> {
        let Some(result) = result else {
            return Ok(());
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
        Ok(())
    }

    /// Publishes as long as it takes and the message is ours.
    async fn publish(&self, topic: &str, value: &[u8], more: &[Header]) -> Result<(), Stop> {
        let mut headers = more.to_vec();
        headers.push(Header {
            name: TraceContext::HEADER,
            value: self.message.trace.child().to_string(),
        });
        let key = self.message.key.as_deref().unwrap_or_default();
        loop {
            self.confirm_if_stale().await?;
            let published = tokio::select! {
                published = self.service.producer.publish(topic, key, value, &headers) => published,
                () = self.lost.cancelled() => return Err(Stop::Lost),
            };
            match published {
                Ok(_) => return Ok(()),
                // Committing without it would lose the outcome, so even a refusal is waited out.
                Err(error @ PublishError::Refused { .. }) => {
                    tracing::error!(error = crate::work::chain(&error), "Cannot publish; trying again");
                }
                Err(error) => {
                    tracing::warn!(error = crate::work::chain(&error), "Publishing again");
                }
            }
            self.pause().await?;
        }
    }

    async fn commit(&self, task: &str, success: bool) -> Result<(), Stop> {
        let (consumer, place) = (&self.service.consumer, self.message.place.next());
        // If the next message in turn follows this one, its first try is noted with the same commit: brokers take some
        // milliseconds for each.
        let follows = |next: &Place| next.partition == place.partition && next.offset >= place.offset;
        match consumer.next_in_turn().filter(follows) {
            Some(next) => consumer.commit(next, Attempt::default().next()).await?,
            None => consumer.commit(place, Attempt::default()).await?,
        }
        if success {
            tracing::info!(task_uuid = task, %place, "Offset committed successfully");
        } else {
            tracing::warn!(task_uuid = task, %place, "Offset committed despite error");
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => Ok(()),
            () = self.lost.cancelled() => Err(Stop::Lost),
        }
    }
}
