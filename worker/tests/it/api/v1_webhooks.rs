//! Webhooks of v1: repeated for three days across restarts, with one ID and a new signature each, to receivers of any
//! speed. The time of day is injected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use separation_contract::api_task::Output;
use separation_contract::message::TaskId;
use separation_testbed::{Receiver, Reply, Request, tiny_song};
use separation_worker::api::{Client as ApiClient, Clients, Deliverer, V1Settings};
use separation_worker::outbound::Client;
use separation_worker::storage::S3;
use separation_worker::task_store::{
    Delivery, DeliveryState, EndState, InputSource, StoredInput, StoredTask, TaskStore, VERSION,
    WebhookReport,
};
use separation_worker::telemetry::ApiMetrics;
use separation_worker::webhook::Signer;
use serde_json::json;
use sha2::Sha256;

use super::bench::Answer;
use super::v1_bench::{LIMIT, V1Bench, accepted, outcome, task_id};
use crate::storage::staging_area::{new_bucket, s3_settings};

const START: u64 = 1_763_683_200;
const HOUR: u64 = 60 * 60;

/// Later than any attempt.
const LATER: u64 = 4_000_000_000;

/// Deliveries with an injected time.
struct Deliveries {
    store: TaskStore,
    receiver: Receiver,
    now: Arc<AtomicU64>,
    metrics: ApiMetrics,
}

impl Deliveries {
    async fn new() -> Self {
        let settings = s3_settings(&new_bucket().await).await;
        Self {
            store: TaskStore::new(S3::connect(&settings).await, &settings).unwrap(),
            receiver: Receiver::start().await.unwrap(),
            now: Arc::new(AtomicU64::new(START)),
            metrics: ApiMetrics::new(),
        }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn advance(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    /// A new process that delivers.
    fn process(&self) -> Deliverer {
        self.process_of(&["acme", "other"])
    }

    /// A new process that delivers; it has these clients, each with a current and an older secret.
    fn process_of(&self, clients: &[&str]) -> Deliverer {
        let clients = clients.iter().zip(1..).map(|(name, key)| {
            let mut client = ApiClient::new(name, [key; 32]).unwrap();
            client.signers = ["secret", "older"]
                .map(|secret| Signer::new(&secret.into()).unwrap())
                .into();
            client
        });
        let settings = V1Settings {
            public_url: None,
            stems_retention: None,
            max_input_seconds: 60,
        };
        let now = Arc::clone(&self.now);
        Deliverer::new(
            self.store.clone(),
            Arc::new(Clients::new(clients.collect()).unwrap()),
            Client::new(&["127.0.0.0/8".parse().unwrap()]),
            Arc::new(settings),
            uuid::Uuid::new_v4().to_string(),
            Arc::new(move || now.load(Ordering::SeqCst)),
            self.metrics.clone(),
        )
    }

    /// Attempts with this outcome, as all processes counted them.
    fn counted(&self, outcome: &str) -> Option<String> {
        let text = String::from_utf8(self.metrics.families().text()).unwrap();
        let series = format!("separation_webhooks_total{{outcome=\"{outcome}\"}} ");
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(&series).map(str::to_owned))
    }

    /// Stores a task of the client `acme` and schedules its webhook.
    async fn schedule(&self, url: &str) -> TaskId {
        self.schedule_of("acme", url).await
    }

    async fn schedule_of(&self, client: &str, url: &str) -> TaskId {
        let id = task_id(&uuid::Uuid::new_v4().to_string());
        let task = StoredTask {
            version: VERSION,
            id: id.clone(),
            client: client.to_owned(),
            fingerprint: String::new(),
            created_at: START,
            input: StoredInput {
                source: InputSource::File,
                file_name: None,
                duration_seconds: None,
            },
            output: Output::default(),
            webhook_url: Some(url.to_owned()),
            metadata: BTreeMap::new(),
            traceparent: String::new(),
        };
        self.store.create_task(&task).await.unwrap();
        let delivery = Delivery {
            id: id.clone(),
            client: client.to_owned(),
            url: url.to_owned(),
            attempts: 0,
            scheduled_at: self.now(),
        };
        self.store.schedule_delivery(self.now(), &delivery).await.unwrap();
        id
    }

    /// The same for a task that ended.
    async fn schedule_ended(&self, url: &str, state: EndState) -> TaskId {
        let id = self.schedule(url).await;
        self.end(&id, state).await;
        id
    }

    async fn end(&self, id: &TaskId, state: EndState) {
        self.store
            .create_outcome(&outcome(id, state, START))
            .await
            .unwrap();
    }

    /// State, attempts and last status of a delivery.
    async fn report(&self, id: &TaskId) -> (DeliveryState, u32, Option<u16>) {
        let report = self.store.webhook_report(id).await.unwrap().expect("an attempt");
        (report.state, report.attempts, report.status)
    }

    async fn scheduled(&self) -> Vec<(u64, Delivery)> {
        self.store.due_deliveries(LATER, 1_000).await.unwrap()
    }
}

/// Checks the signatures of a request by both secrets, and returns its `webhook-id` and `webhook-timestamp`.
fn verify(request: &Request) -> (String, u64) {
    let header = |name| request.header(name).expect(name).to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signatures = ["secret", "older"].map(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(&request.body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    });
    assert_eq!(header("webhook-signature"), signatures.join(" "));
    (id, timestamp.parse().unwrap())
}

#[tokio::test]
async fn a_receiver_that_is_down_for_three_hours_gets_every_webhook_with_one_id() {
    let deliveries = Deliveries::new().await;
    let mut ids = Vec::new();
    for state in [EndState::Succeeded, EndState::Failed, EndState::Cancelled] {
        let url = deliveries.receiver.url("/hook");
        ids.push(deliveries.schedule_ended(&url, state).await);
    }
    deliveries.receiver.script("/hook", [Reply::Status(503)]);
    let mut process = deliveries.process();
    for minute in 0..180 {
        if minute % 45 == 7 {
            process = deliveries.process();
        }
        process.deliver_due().await.unwrap();
        deliveries.advance(60);
    }
    for id in &ids {
        let (state, attempts, status) = deliveries.report(id).await;
        assert_eq!((state, status), (DeliveryState::Pending, Some(503)));
        assert!((6..10).contains(&attempts), "{attempts}");
    }
    deliveries.receiver.script("/hook", [Reply::Status(204)]);
    for _ in 0..70 {
        process.deliver_due().await.unwrap();
        deliveries.advance(60);
    }

    assert_eq!(deliveries.scheduled().await, []);
    let requests = deliveries.receiver.requests_to("/hook");
    let mut webhook_ids = BTreeSet::new();
    for (id, kind) in ids
        .iter()
        .zip(["task.succeeded", "task.failed", "task.cancelled"])
    {
        let (state, attempts, status) = deliveries.report(id).await;
        assert_eq!((state, status), (DeliveryState::Delivered, Some(204)));
        let own = requests
            .iter()
            .filter(|request| request.json()["data"]["id"] == id.as_str());
        let own: Vec<(String, u64)> = own
            .inspect(|request| assert_eq!(request.json()["type"], kind))
            .inspect(|request| assert_eq!(request.json()["timestamp"], "2025-11-21T00:00:00Z"))
            .map(verify)
            .collect();
        assert_eq!(own.len(), attempts as usize);
        assert!(
            own.is_sorted_by(|(_, first), (_, second)| first < second),
            "{own:?}"
        );
        webhook_ids.extend(own.into_iter().map(|(webhook_id, _)| webhook_id));
    }
    assert_eq!(webhook_ids.len(), 3, "one for each task: {webhook_ids:?}");
    assert_eq!(deliveries.counted("delivered").as_deref(), Some("3"));
}

#[tokio::test]
async fn the_response_decides_whether_a_webhook_is_sent_again() {
    let deliveries = Deliveries::new().await;
    let receiver = &deliveries.receiver;
    let mut expected = Vec::new();
    for (path, reply, state) in [
        ("/gone", Reply::Status(410), DeliveryState::Failed),
        ("/wrong", Reply::Status(401), DeliveryState::Failed),
        ("/busy", Reply::Status(429), DeliveryState::Pending),
        (
            "/moved",
            Reply::Redirect(receiver.url("/new")),
            DeliveryState::Pending,
        ),
        (
            "/moved-post",
            Reply::RedirectPost(receiver.url("/new")),
            DeliveryState::Pending,
        ),
    ] {
        receiver.script(path, [reply]);
        let id = deliveries
            .schedule_ended(&receiver.url(path), EndState::Succeeded)
            .await;
        expected.push((id, path, state));
    }
    let private = deliveries
        .schedule_ended("http://10.0.0.1/hook", EndState::Succeeded)
        .await;
    let process = deliveries.process();
    // Two rounds: attempts at one receiver wait for each other.
    for _ in 0..2 {
        process.deliver_due().await.unwrap();
    }
    for (id, path, state) in expected {
        assert_eq!(deliveries.report(&id).await.0, state, "{path}");
        assert_eq!(receiver.requests_to(path).len(), 1, "{path}");
    }
    assert!(
        receiver.requests_to("/new").is_empty(),
        "redirects are not followed"
    );
    assert_eq!(
        deliveries.report(&private).await,
        (DeliveryState::Failed, 1, None)
    );
    assert_eq!(deliveries.scheduled().await.len(), 3);
    for outcome in ["failed", "retried"] {
        assert_eq!(deliveries.counted(outcome).as_deref(), Some("3"), "{outcome}");
    }
}

#[tokio::test]
async fn a_slow_receiver_does_not_delay_others() {
    let deliveries = Deliveries::new().await;
    let slow = Receiver::start().await.unwrap();
    slow.script("/hook", [Reply::Hang]);
    for _ in 0..40 {
        deliveries
            .schedule_ended(&slow.url("/hook"), EndState::Succeeded)
            .await;
    }
    deliveries.advance(1);
    for _ in 0..5 {
        deliveries
            .schedule_ended(&deliveries.receiver.url("/hook"), EndState::Succeeded)
            .await;
    }
    let process = deliveries.process();
    let delivering = tokio::spawn(async move { process.deliver_due().await });
    let all = |requests: &[Request]| requests.len() == 5;
    deliveries
        .receiver
        .wait_for(all, Duration::from_secs(10))
        .await
        .unwrap();
    delivering.abort();
}

#[tokio::test]
async fn slow_receivers_of_one_client_do_not_delay_other_clients() {
    let deliveries = Deliveries::new().await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let receiver = Receiver::start().await.unwrap();
        receiver.script("/hook", [Reply::Hang]);
        for _ in 0..2 {
            deliveries
                .schedule_ended(&receiver.url("/hook"), EndState::Succeeded)
                .await;
        }
        slow.push(receiver);
    }
    deliveries.advance(1);
    let id = deliveries
        .schedule_of("other", &deliveries.receiver.url("/hook"))
        .await;
    deliveries.end(&id, EndState::Succeeded).await;
    let process = deliveries.process();
    let delivering = tokio::spawn(async move { process.deliver_due().await });
    // Less than the time limit of an attempt.
    deliveries
        .receiver
        .wait_for(|requests| requests.len() == 1, Duration::from_secs(10))
        .await
        .unwrap();
    let attempts: usize = slow.iter().map(|receiver| receiver.requests().len()).sum();
    assert!(attempts <= 3, "{attempts} of one client");
    delivering.abort();
}

#[tokio::test]
async fn no_webhook_of_a_burst_at_a_receiver_that_accepts_them_is_put_off() {
    let deliveries = Deliveries::new().await;
    let reply = Reply::After(Duration::from_millis(700), Box::new(Reply::Status(204)));
    deliveries.receiver.script("/hook", [reply]);
    for _ in 0..10 {
        let url = deliveries.receiver.url("/hook");
        deliveries.schedule_ended(&url, EndState::Succeeded).await;
    }
    // Two simultaneously: longer than an attempt waits for a receiver that does not respond.
    deliveries.process().deliver_due().await.unwrap();
    assert_eq!(deliveries.receiver.requests().len(), 10);
    assert_eq!(deliveries.scheduled().await, []);
}

#[tokio::test]
async fn a_replica_that_does_not_know_a_client_leaves_its_webhooks_to_others_for_a_day() {
    let deliveries = Deliveries::new().await;
    let url = deliveries.receiver.url("/hook");
    let id = deliveries.schedule_ended(&url, EndState::Succeeded).await;
    let old = deliveries.process_of(&["other"]);
    old.deliver_due().await.unwrap();
    let left = deliveries.scheduled().await;
    let left: Vec<_> = left
        .iter()
        .map(|(_, delivery)| (&delivery.id, delivery.attempts))
        .collect();
    assert_eq!(left, [(&id, 0)]);
    assert_eq!(deliveries.store.webhook_report(&id).await.unwrap(), None);
    deliveries.advance(120);
    deliveries.process().deliver_due().await.unwrap();
    let delivered = (DeliveryState::Delivered, 1, Some(200));
    assert_eq!(deliveries.report(&id).await, delivered);

    let removed = deliveries.schedule_ended(&url, EndState::Succeeded).await;
    for _ in 0..24 {
        old.deliver_due().await.unwrap();
        assert_eq!(deliveries.scheduled().await.len(), 1);
        deliveries.advance(HOUR);
    }
    old.deliver_due().await.unwrap();
    assert_eq!(deliveries.scheduled().await, []);
    assert_eq!(
        deliveries.report(&removed).await,
        (DeliveryState::Failed, 0, None)
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_webhook_whose_task_is_erased_during_an_attempt() {
    let deliveries = Deliveries::new().await;
    let reply = Reply::After(Duration::from_secs(2), Box::new(Reply::Status(503)));
    deliveries.receiver.script("/hook", [reply]);
    let url = deliveries.receiver.url("/hook");
    let id = deliveries.schedule_ended(&url, EndState::Succeeded).await;
    let process = deliveries.process();
    let delivering = tokio::spawn(async move { process.deliver_due().await });
    deliveries
        .receiver
        .wait_for(|requests| requests.len() == 1, LIMIT)
        .await
        .unwrap();
    deliveries.store.erase("acme", &id, START).await.unwrap();
    delivering.await.unwrap().unwrap();
    assert_eq!(deliveries.scheduled().await, []);
    assert_eq!(deliveries.store.webhook_report(&id).await.unwrap(), None);
}

#[tokio::test]
async fn a_webhook_waits_for_the_outcome_of_its_task_for_a_day() {
    let deliveries = Deliveries::new().await;
    let url = deliveries.receiver.url("/hook");
    let (ended, never) = (deliveries.schedule(&url).await, deliveries.schedule(&url).await);
    let process = deliveries.process();
    process.deliver_due().await.unwrap();
    assert_eq!(deliveries.scheduled().await.len(), 2);
    deliveries
        .store
        .create_outcome(&outcome(&ended, EndState::Cancelled, START))
        .await
        .unwrap();
    deliveries.advance(60);
    process.deliver_due().await.unwrap();
    assert_eq!(
        deliveries.report(&ended).await,
        (DeliveryState::Delivered, 1, Some(200))
    );
    let left = deliveries.scheduled().await;
    assert_eq!(
        left.iter().map(|(_, delivery)| &delivery.id).collect::<Vec<_>>(),
        [&never]
    );
    deliveries.advance(24 * HOUR);
    process.deliver_due().await.unwrap();
    assert_eq!(deliveries.scheduled().await, []);
    assert_eq!(deliveries.receiver.requests().len(), 1);
}

#[tokio::test]
async fn attempts_that_were_made_or_whose_task_was_erased_are_removed() {
    let deliveries = Deliveries::new().await;
    let url = deliveries.receiver.url("/hook");
    let delivered = deliveries.schedule_ended(&url, EndState::Succeeded).await;
    let (_, first) = deliveries.scheduled().await.pop().unwrap();
    let process = deliveries.process();
    process.deliver_due().await.unwrap();
    // As after a kill between the report and the removal.
    deliveries
        .store
        .schedule_delivery(deliveries.now(), &first)
        .await
        .unwrap();
    process.deliver_due().await.unwrap();
    assert_eq!(
        deliveries.report(&delivered).await,
        (DeliveryState::Delivered, 1, Some(200))
    );

    let erased = deliveries.schedule_ended(&url, EndState::Succeeded).await;
    let (_, delivery) = deliveries.scheduled().await.pop().unwrap();
    deliveries.store.erase("acme", &erased, START).await.unwrap();
    deliveries
        .store
        .schedule_delivery(deliveries.now(), &delivery)
        .await
        .unwrap();
    process.deliver_due().await.unwrap();
    assert_eq!(deliveries.scheduled().await, []);
    assert_eq!(deliveries.receiver.requests().len(), 1);

    // Sent again on request.
    deliveries.advance(60);
    let pending = WebhookReport {
        state: DeliveryState::Pending,
        attempts: 0,
        last_attempt_at: Some(START),
        status: Some(200),
    };
    deliveries
        .store
        .put_webhook_report(&delivered, &pending)
        .await
        .unwrap();
    let again = Delivery {
        scheduled_at: deliveries.now(),
        ..first
    };
    deliveries
        .store
        .schedule_delivery(deliveries.now(), &again)
        .await
        .unwrap();
    process.deliver_due().await.unwrap();
    let ids: BTreeSet<String> = deliveries
        .receiver
        .requests()
        .iter()
        .map(|request| verify(request).0)
        .collect();
    assert_eq!((deliveries.receiver.requests().len(), ids.len()), (2, 1));
}

#[tokio::test]
async fn a_canceled_task_is_reported_to_its_receiver() {
    let api = V1Bench::start(&[]).await;
    let receiver = Receiver::start().await.unwrap();
    // Only this name may be called.
    let hook = format!("http://localhost:{}/hook", receiver.address().port());
    let id = accepted(&Answer::of(api.post_form(&json!({"webhook_url": hook}), &tiny_song(1))).await);
    let cancel = api.request(Method::POST, &format!("/v1/tasks/{id}/cancel"));
    assert_eq!(Answer::of(cancel).await.status, 200);
    let requests = receiver
        .wait_for(|requests| requests.len() == 1, LIMIT)
        .await
        .unwrap();
    let body = requests[0].json();
    assert_eq!(body["type"], "task.cancelled");
    assert_eq!(
        (&body["data"]["id"], &body["data"]["state"]),
        (&json!(id), &json!("cancelled"))
    );
    assert!(requests[0].header("webhook-signature").is_some());
    let delivered = separation_testbed::eventually("the report", LIMIT, async || {
        let webhook = api.get(&format!("/v1/tasks/{id}")).await.json["webhook"].clone();
        (webhook["state"] == "delivered").then_some(webhook)
    })
    .await;
    assert_eq!(delivered["attempts"], 1);
}
