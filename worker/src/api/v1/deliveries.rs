//! Delivers webhooks: the schedule of attempts, and the attempts that are due.
//!
//! Deliveries are stored as objects with the time of their next attempt, so that they survive restarts and any
//! replica makes the attempt, under a claim. An attempt may be repeated after a kill; its `webhook-id` stays the same.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use separation_contract::message::TaskId;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::super::clients::{Client as ApiClient, Clients};
use super::super::status::TaskEvidence;
use super::attempt_slots::AttemptSlots;
use super::claims::claim;
use super::settings::V1Settings;
use super::view::{TaskSources, TaskView, ViewContext};
use crate::clock::rfc3339;
use crate::faults;
use crate::outbound::Client;
use crate::storage::StorageError;
use crate::task_store::{
    Delivery, DeliveryState, EndState, StoredOutcome, StoredTask, TaskStore, WebhookReport,
};
use crate::telemetry::{ApiMetrics, TraceContext};
use crate::webhook::{self, Attempt, Event};

/// Pauses after the first attempts; later ones are an hour.
const FIRST_PAUSES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
];

/// Longest pause between attempts, also if the receiver asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Time in which attempts are made: 5 pauses of together 43 minutes, then 71 of an hour.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A pause is longer by at most this part of it, so that the webhooks of one outage are not sent simultaneously.
const JITTER: f64 = 0.1;

/// Attempts that wait to be made or are made; further ones stay in the store.
const MAX_STARTED: usize = 64;

/// Pause of an attempt whose client this replica does not know: during an update, other replicas know it already.
const UNKNOWN_CLIENT_PAUSE: Duration = Duration::from_secs(60);

/// Time after which a delivery whose client no replica knows has failed.
const UNKNOWN_CLIENT_SECONDS: u64 = 24 * 60 * 60;

/// Pause of an attempt whose task has no outcome yet: the process that scheduled it is about to store one.
const NO_OUTCOME_PAUSE: Duration = Duration::from_secs(30);

/// Time after which a delivery without an outcome is dropped: the process that scheduled it was killed, and another one
/// ended the task and scheduled its own.
const NO_OUTCOME_SECONDS: u64 = 24 * 60 * 60;

/// The time of day in Unix seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Delivers the webhooks of the HTTP API v1; cheap to clone.
#[derive(Clone)]
pub struct Deliverer(Arc<Shared>);

struct Shared {
    store: TaskStore,
    clients: Arc<Clients>,
    outbound: Client,
    settings: Arc<V1Settings>,
    replica: String,
    clock: Clock,
    metrics: ApiMetrics,
    slots: AttemptSlots,
    started: Mutex<HashSet<TaskId>>,
}

/// The task of an attempt.
struct EndedTask {
    task: StoredTask,
    outcome: StoredOutcome,
}

impl Deliverer {
    /// Delivers what `store` contains, signed with the secrets of `clients`. `replica` is the name of this process in
    /// claims.
    pub fn new(
        store: TaskStore,
        clients: Arc<Clients>,
        outbound: Client,
        settings: Arc<V1Settings>,
        replica: String,
        clock: Clock,
        metrics: ApiMetrics,
    ) -> Self {
        Self(Arc::new(Shared {
            store,
            clients,
            outbound,
            settings,
            replica,
            clock,
            metrics,
            slots: AttemptSlots::new(),
            started: Mutex::default(),
        }))
    }

    /// Makes the attempts that are due, and returns their number once they are made.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn deliver_due(&self) -> Result<usize, StorageError> {
        let started = self.start_due(&TaskTracker::new()).await?;
        Ok(join_all(started).await.len())
    }

    /// Starts the attempts that are due, on `unfinished`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(super) async fn start_due(
        &self,
        unfinished: &TaskTracker,
    ) -> Result<Vec<JoinHandle<()>>, StorageError> {
        let now = (self.0.clock)();
        let room = MAX_STARTED.saturating_sub(self.0.started().len());
        if room == 0 {
            return Ok(Vec::new());
        }
        // Those that were started are still listed.
        let due = self.0.store.due_deliveries(now, MAX_STARTED + room).await?;
        let mut started = Vec::new();
        for (due, delivery) in due {
            if started.len() == room {
                break;
            }
            if !self.0.started().insert(delivery.id.clone()) {
                continue;
            }
            let shared = Arc::clone(&self.0);
            started.push(unfinished.spawn(async move {
                let id = delivery.id.clone();
                if let Err(error) = shared.deliver(due, delivery).await {
                    tracing::warn!(task_uuid = %id, %error, "Cannot deliver a webhook now; it stays scheduled");
                }
                shared.started().remove(&id);
            }));
        }
        Ok(started)
    }
}

impl Shared {
    fn started(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    async fn deliver(&self, due: u64, delivery: Delivery) -> Result<(), StorageError> {
        let slot = match self.slots.acquire(&delivery.client, &delivery.url).await {
            Ok(slot) => slot,
            Err(no_slot) => {
                let pause = no_slot.pause(&delivery.id);
                return self.wait_for_receiver(due, &delivery, pause).await;
            }
        };
        let name = format!("delivery-{}", delivery.id);
        if !claim(&self.store, &name, &self.replica, self.now()).await? {
            return Ok(());
        }
        faults::point("delivery_claimed").await;
        let report = self.store.webhook_report(&delivery.id).await?;
        if report.is_some_and(|report| is_superseded(&delivery, &report)) {
            return self.store.remove_delivery(due, &delivery.id).await;
        }
        let outcome = self.store.outcome(&delivery.id).await?;
        let Some(outcome) = outcome else {
            let age = self.now().saturating_sub(delivery.scheduled_at);
            if age >= NO_OUTCOME_SECONDS {
                return self.store.remove_delivery(due, &delivery.id).await;
            }
            return self.put_off(due, &delivery, NO_OUTCOME_PAUSE).await;
        };
        let task = self.store.task(&delivery.client, &delivery.id).await?;
        let Some(task) = task.filter(|_| outcome.state != EndState::Erased) else {
            return self.store.remove_delivery(due, &delivery.id).await;
        };
        let Some(client) = self.clients.by_name(&delivery.client) else {
            return self.wait_for_client(due, &delivery, report).await;
        };
        let began_at = self.now();
        let ended = EndedTask { task, outcome };
        let attempt = self.attempt(&delivery, &ended, &client, began_at).await;
        slot.record(matches!(attempt, Attempt::Delivered(_)));
        faults::point("delivery_attempted").await;
        self.record(due, &delivery, attempt, began_at).await
    }

    /// Sends the webhook once.
    async fn attempt(&self, delivery: &Delivery, ended: &EndedTask, client: &ApiClient, now: u64) -> Attempt {
        let context = ViewContext {
            now,
            stems_retention: self.settings.stems_retention,
            public_url: self.settings.public_url.as_ref(),
        };
        let Some(content) = Content::new(ended, context) else {
            let reason = "the task was erased".to_owned();
            return Attempt::Refused { status: None, reason };
        };
        let id = webhook::event_id(&delivery.id, content.kind);
        let event = Event {
            id: &id,
            url: &delivery.url,
            body: &content.body,
            trace: TraceContext::from_header(Some(ended.task.traceparent.as_bytes())),
        };
        webhook::send(&self.outbound, &client.signers, event, now).await
    }

    /// Stores the result of an attempt: the next attempt first, then the report, so that a process that is killed in
    /// between loses no webhook.
    async fn record(
        &self,
        due: u64,
        delivery: &Delivery,
        attempt: Attempt,
        began_at: u64,
    ) -> Result<(), StorageError> {
        let attempted = Delivery {
            attempts: delivery.attempts.saturating_add(1),
            ..delivery.clone()
        };
        let mut next_due = None;
        let (state, status) = match attempt {
            Attempt::Delivered(status) => (DeliveryState::Delivered, Some(status)),
            Attempt::Refused { status, reason } => {
                tracing::warn!(task_uuid = %delivery.id, error = reason, "The webhook failed; it is not sent again");
                (DeliveryState::Failed, status)
            }
            Attempt::Failed {
                status,
                retry_after,
                reason,
            } => match next_attempt(&attempted, self.now(), retry_after, random()) {
                Some(next) => {
                    tracing::warn!(
                        task_uuid = %delivery.id,
                        error = reason,
                        attempts = attempted.attempts,
                        "The webhook failed; retrying"
                    );
                    self.store.schedule_delivery(next, &attempted).await?;
                    faults::point("delivery_rescheduled").await;
                    next_due = Some(next);
                    (DeliveryState::Pending, status)
                }
                None => {
                    tracing::warn!(
                        task_uuid = %delivery.id,
                        error = reason,
                        attempts = attempted.attempts,
                        "The webhook failed for three days; it is not sent again"
                    );
                    (DeliveryState::Failed, status)
                }
            },
        };
        self.metrics.webhook(outcome_label(state));
        let report = WebhookReport {
            state,
            attempts: attempted.attempts,
            last_attempt_at: Some(began_at),
            status,
        };
        self.store.put_webhook_report(&delivery.id, &report).await?;
        faults::point("delivery_reported").await;
        self.store.remove_delivery(due, &delivery.id).await?;
        if state == DeliveryState::Delivered {
            tracing::info!(task_uuid = %delivery.id, attempts = attempted.attempts, "Webhook delivered");
        }
        self.erase_again(delivery, next_due).await
    }

    /// Removes what this process stored for a delivery, if its task was erased meanwhile. `next_due` is the time of the
    /// attempt that it scheduled.
    async fn erase_again(&self, delivery: &Delivery, next_due: Option<u64>) -> Result<(), StorageError> {
        let Delivery { client, id, .. } = delivery;
        let outcome = self.store.outcome(id).await?;
        let Some(erased) = outcome.filter(|outcome| outcome.state == EndState::Erased) else {
            return Ok(());
        };
        // The erasure listed the deliveries before this one was scheduled, and without the record it lists none.
        if let Some(next_due) = next_due {
            self.store.remove_delivery(next_due, id).await?;
        }
        self.store.erase(client, id, erased.finished_at).await
    }

    /// Puts off an attempt that got no slot, or ends its delivery if the time for attempts is over.
    async fn wait_for_receiver(
        &self,
        due: u64,
        delivery: &Delivery,
        pause: Duration,
    ) -> Result<(), StorageError> {
        let age = self.now().saturating_sub(delivery.scheduled_at);
        if age <= GIVE_UP_AFTER.as_secs() {
            return self.put_off(due, delivery, pause).await;
        }
        self.give_up(due, delivery, "its receiver was busy for three days")
            .await
    }

    /// Puts off an attempt whose client this replica does not know, or ends its delivery if no replica has known the
    /// client for too long.
    async fn wait_for_client(
        &self,
        due: u64,
        delivery: &Delivery,
        report: Option<WebhookReport>,
    ) -> Result<(), StorageError> {
        let last_attempt = report.and_then(|report| report.last_attempt_at);
        let known_at = delivery.scheduled_at.max(last_attempt.unwrap_or_default());
        if self.now().saturating_sub(known_at) < UNKNOWN_CLIENT_SECONDS {
            return self.put_off(due, delivery, UNKNOWN_CLIENT_PAUSE).await;
        }
        let reason = format!("the API keys have had no client `{}` for a day", delivery.client);
        self.give_up(due, delivery, &reason).await
    }

    /// Ends a delivery without another attempt.
    async fn give_up(&self, due: u64, delivery: &Delivery, reason: &str) -> Result<(), StorageError> {
        let last = self.store.webhook_report(&delivery.id).await?;
        let report = WebhookReport {
            state: DeliveryState::Failed,
            attempts: delivery.attempts,
            last_attempt_at: last.and_then(|report| report.last_attempt_at),
            status: last.and_then(|report| report.status),
        };
        tracing::warn!(
            task_uuid = %delivery.id,
            error = reason,
            attempts = delivery.attempts,
            "The webhook failed; it is not sent again"
        );
        self.store.put_webhook_report(&delivery.id, &report).await?;
        self.metrics.webhook(outcome_label(report.state));
        self.store.remove_delivery(due, &delivery.id).await?;
        self.erase_again(delivery, None).await
    }

    /// Schedules the same attempt again.
    async fn put_off(&self, due: u64, delivery: &Delivery, pause: Duration) -> Result<(), StorageError> {
        let later = put_off_until(due, pause, self.now());
        self.store.schedule_delivery(later, delivery).await?;
        self.store.remove_delivery(due, &delivery.id).await
    }
}

/// The body of a webhook.
struct Content {
    /// The type of the event.
    kind: &'static str,
    body: Vec<u8>,
}

impl Content {
    /// The webhook of an ended task; none if it was erased. The same in every attempt, except for stems that expired.
    fn new(ended: &EndedTask, context: ViewContext<'_>) -> Option<Self> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            timestamp: String,
            data: &'a TaskView,
        }
        let kind = match ended.outcome.state {
            EndState::Succeeded => "task.succeeded",
            EndState::Failed => "task.failed",
            EndState::Cancelled => "task.cancelled",
            EndState::Erased => return None,
        };
        let sources = TaskSources {
            task: &ended.task,
            outcome: Some(&ended.outcome),
            webhook: None,
            evidence: &TaskEvidence::default(),
        };
        let body = Body {
            kind,
            timestamp: rfc3339(ended.outcome.finished_at),
            data: &TaskView::new(sources, context)?,
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers always serialize");
        Some(Self { kind, body })
    }
}

/// The label of metrics for an attempt that leaves the delivery in this state.
fn outcome_label(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "retried",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
    }
}

/// The time of the attempt after `attempted.attempts` failed ones, of which the last ended at `now`; none if the time for
/// attempts is over. `retry_after` is the pause that the receiver asks for; `random` is in 0..1.
fn next_attempt(attempted: &Delivery, now: u64, retry_after: Option<Duration>, random: f64) -> Option<u64> {
    let failed = attempted.attempts.saturating_sub(1) as usize;
    let pause = FIRST_PAUSES.get(failed).copied().unwrap_or(LONGEST_PAUSE);
    let pause = pause.max(retry_after.unwrap_or_default().min(LONGEST_PAUSE));
    let next = now + pause.mul_f64(1.0 + JITTER * random).as_secs();
    let last = attempted.scheduled_at + GIVE_UP_AFTER.as_secs();
    (next <= last).then_some(next)
}

/// Whether this attempt was made, or its delivery ended: a process was killed before it removed this attempt. A webhook
/// that is to be sent again has a report without attempts.
fn is_superseded(delivery: &Delivery, report: &WebhookReport) -> bool {
    report.state != DeliveryState::Pending || report.attempts > delivery.attempts
}

/// The first time after `now` that is a multiple of `pause` after `due`. Replicas that put off one attempt at the same
/// time agree on it, so that it stays one.
fn put_off_until(due: u64, pause: Duration, now: u64) -> u64 {
    let pauses = now.saturating_sub(due) / pause.as_secs() + 1;
    due + pauses * pause.as_secs()
}

/// A random number in 0..1.
fn random() -> f64 {
    // The first 32 bits of a random UUID are random.
    f64::from((Uuid::new_v4().as_u128() >> 96) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            id: TaskId::parse("t1").unwrap(),
            client: "acme".to_owned(),
            url: "https://example.com/hook".to_owned(),
            attempts,
            scheduled_at: 1_000,
        }
    }

    #[test]
    fn attempts_are_made_for_three_days_with_longer_and_longer_pauses() {
        let (mut now, mut pauses) = (1_000, Vec::new());
        for attempts in 1.. {
            let Some(next) = next_attempt(&delivery(attempts), now, None, 0.0) else {
                break;
            };
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses[..7], [5, 30, 120, 600, 1_800, 3_600, 3_600]);
        assert_eq!(pauses.len(), 76);
        let three_days = 3 * 24 * 3_600;
        assert!(
            (three_days - 3_600..=three_days).contains(&(now - 1_000)),
            "{now}"
        );
    }

    #[test]
    fn jitter_lengthens_a_pause_by_a_tenth_at_most() {
        let pause = |random| next_attempt(&delivery(6), 50_000, None, random).unwrap() - 50_000;
        assert_eq!([0.0, 0.5, 1.0].map(pause), [3_600, 3_780, 3_960]);
        let all_random: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(all_random.iter().all(|random| (0.0..=1.0).contains(random)));
        assert!(all_random.iter().any(|random| *random != all_random[0]));
    }

    #[test]
    fn a_receiver_may_ask_for_a_pause_of_an_hour_at_most() {
        let pause = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            next_attempt(&delivery(2), 2_000, retry_after, 0.0).unwrap() - 2_000
        };
        assert_eq!([0, 10, 31, 3_600, 86_400].map(pause), [30, 30, 31, 3_600, 3_600]);
    }

    #[test]
    fn only_an_attempt_that_was_made_already_is_superseded() {
        let report = |state, attempts| WebhookReport {
            state,
            attempts,
            last_attempt_at: Some(2_000),
            status: None,
        };
        let is_superseded = |attempts, report| is_superseded(&delivery(attempts), &report);
        assert!(is_superseded(0, report(DeliveryState::Pending, 1)));
        assert!(is_superseded(1, report(DeliveryState::Delivered, 1)));
        assert!(is_superseded(0, report(DeliveryState::Failed, 1)));
        assert!(!is_superseded(3, report(DeliveryState::Pending, 3)));
        assert!(
            !is_superseded(0, report(DeliveryState::Pending, 0)),
            "sent again on request"
        );
    }

    #[test]
    fn replicas_put_off_an_attempt_to_the_same_time() {
        let until = |due, now| put_off_until(due, Duration::from_secs(90), now);
        assert_eq!([1_000, 1_005, 1_089].map(|now| until(1_000, now)), [1_090; 3]);
        assert_eq!(until(1_000, 1_090), 1_180);
        assert_eq!(
            until(1_090, 1_095),
            1_180,
            "attempts that were put off apart meet again"
        );
    }
}
