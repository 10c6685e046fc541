//! `separation-worker webhooks` with a real object store, and an API that delivers what is scheduled.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use separation_contract::api_task::Output as Stems;
use separation_contract::environment as env;
use separation_contract::message::TaskId;
use separation_testbed::eventually;
use separation_worker::task_store::{
    Delivery, DeliveryState, EndState, InputSource, StoredInput, StoredOutcome, StoredTask, TaskStore,
    VERSION, WebhookReport,
};
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT, WORKER};

const CLIENT: &str = "acme";

/// Later than any attempt that a test schedules.
const LATER: u64 = 4_000_000_000;

/// Runs `webhooks` as a user of this site does.
async fn webhooks(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = Command::new(WORKER);
    command
        .arg("webhooks")
        .args(arguments)
        .envs(rig.site.environment());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn id(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

/// The fields of JSON lines, by task.
fn by_task(output: &Output, field: &str) -> BTreeMap<String, Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| (row["task_uuid"].as_str().unwrap().to_owned(), row[field].clone()))
        .collect()
}

/// Stores the record of a task and, if it has ended, its outcome.
async fn put_task(tasks: &TaskStore, name: &str, webhook_url: Option<&str>, ended: Option<EndState>) {
    let record = StoredTask {
        version: VERSION,
        id: id(name),
        client: CLIENT.into(),
        fingerprint: String::new(),
        created_at: 1,
        input: StoredInput {
            source: InputSource::File,
            file_name: None,
            duration_seconds: None,
        },
        output: Stems::default(),
        webhook_url: webhook_url.map(str::to_owned),
        metadata: BTreeMap::new(),
        traceparent: String::new(),
    };
    tasks.create_task(&record).await.unwrap();
    if let Some(state) = ended {
        let outcome = StoredOutcome {
            version: VERSION,
            id: id(name),
            state,
            finished_at: 2,
            started_at: None,
            stems: Vec::new(),
            error: None,
        };
        tasks.create_outcome(&outcome).await.unwrap();
    }
}

async fn report(tasks: &TaskStore, name: &str, state: DeliveryState, status: u16) {
    let report = WebhookReport {
        state,
        attempts: 76,
        last_attempt_at: Some(3),
        status: Some(status),
    };
    tasks.put_webhook_report(&id(name), &report).await.unwrap();
}

async fn schedule(tasks: &TaskStore, name: &str, due: u64) {
    let delivery = Delivery {
        id: id(name),
        client: CLIENT.into(),
        url: "https://hooks.example/".into(),
        attempts: 76,
        scheduled_at: 2,
    };
    tasks.schedule_delivery(due, &delivery).await.unwrap();
}

/// Tasks, attempts and due times of everything that is scheduled.
async fn scheduled(tasks: &TaskStore) -> Vec<(String, u32, u64)> {
    let due = tasks.due_deliveries(LATER, 100).await.unwrap();
    let mut due: Vec<_> = due
        .into_iter()
        .map(|(due, delivery)| (delivery.id.to_string(), delivery.attempts, due))
        .collect();
    due.sort();
    due
}

#[tokio::test]
async fn webhooks_are_listed_with_their_state_and_their_next_attempt() {
    let rig = Rig::new(1).await;
    let tasks = rig.task_store().await;
    report(&tasks, "delivered", DeliveryState::Delivered, 200).await;
    report(&tasks, "failed", DeliveryState::Failed, 410).await;
    report(&tasks, "pending", DeliveryState::Pending, 503).await;
    schedule(&tasks, "pending", 3_000_000_000).await;
    schedule(&tasks, "new", 3_000_000_001).await;
    let all = webhooks(&rig, &["list", "--json"]).await;
    assert!(all.status.success(), "{all:?}");
    let expected = [
        ("delivered", "delivered"),
        ("failed", "failed"),
        ("new", "pending"),
        ("pending", "pending"),
    ];
    let expected = expected.map(|(task, state)| (task.to_owned(), json!(state)));
    assert_eq!(by_task(&all, "state"), BTreeMap::from(expected));
    assert_eq!(by_task(&all, "status")["failed"], 410);
    let next = by_task(&all, "next_attempt_at");
    assert_eq!(next["pending"], "2065-01-24T05:20:00Z");
    assert_eq!(
        (&next["new"], &next["failed"]),
        (&json!("2065-01-24T05:20:01Z"), &Value::Null)
    );
    let pending = webhooks(&rig, &["list", "--state", "pending", "--json"]).await;
    let attempts = [("new".to_owned(), json!(0)), ("pending".to_owned(), json!(76))];
    assert_eq!(by_task(&pending, "attempts"), BTreeMap::from(attempts));
    let failed = webhooks(&rig, &["list", "--state", "failed"]).await;
    let lines = String::from_utf8(failed.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[tokio::test]
async fn a_webhook_is_scheduled_again_in_place_of_its_next_attempt() {
    let rig = Rig::new(1).await;
    let tasks = rig.task_store().await;
    let hook = Some("https://hooks.example/done");
    for name in ["failed", "refused", "pending", "delivered"] {
        put_task(&tasks, name, hook, Some(EndState::Succeeded)).await;
    }
    report(&tasks, "failed", DeliveryState::Failed, 503).await;
    report(&tasks, "refused", DeliveryState::Failed, 410).await;
    report(&tasks, "delivered", DeliveryState::Delivered, 200).await;
    report(&tasks, "pending", DeliveryState::Pending, 503).await;
    schedule(&tasks, "pending", 3_000_000_000).await;

    let resent = webhooks(&rig, &["resend", "--failed", "--json"]).await;
    assert!(resent.status.success(), "{resent:?}");
    let expected = ["failed", "refused"].map(|name| (name.to_owned(), json!("scheduled")));
    assert_eq!(by_task(&resent, "status"), BTreeMap::from(expected));
    let resent = webhooks(&rig, &["resend", "pending", "delivered"]).await;
    assert!(resent.status.success(), "{resent:?}");
    let scheduled = scheduled(&tasks).await;
    let found: Vec<(&str, u32)> = scheduled
        .iter()
        .map(|(name, attempts, _)| (name.as_str(), *attempts))
        .collect();
    assert_eq!(
        found,
        [("delivered", 0), ("failed", 0), ("pending", 0), ("refused", 0)]
    );
    assert!(
        scheduled.iter().all(|(_, _, due)| *due < 3_000_000_000),
        "{scheduled:?}"
    );
    for name in ["failed", "delivered"] {
        let report = tasks.webhook_report(&id(name)).await.unwrap().unwrap();
        assert_eq!(report.state, DeliveryState::Pending, "{name}");
    }
}

#[tokio::test]
async fn a_webhook_without_a_task_that_has_ended_is_refused() {
    let rig = Rig::new(1).await;
    let tasks = rig.task_store().await;
    put_task(&tasks, "running", Some("https://hooks.example/done"), None).await;
    put_task(&tasks, "silent", None, Some(EndState::Failed)).await;
    let refused = webhooks(&rig, &["resend", "running", "silent", "unknown", "--json"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let reasons = by_task(&refused, "error");
    for (task, reason) in [
        ("running", "has not ended"),
        ("silent", "without webhook_url"),
        ("unknown", "no record"),
    ] {
        let error = reasons[task].as_str().unwrap();
        assert!(error.contains(reason), "{task}: {error}");
    }
    assert_eq!(scheduled(&tasks).await, []);
}

#[tokio::test]
async fn the_api_delivers_a_webhook_that_was_scheduled_again() {
    let rig = Rig::new(1).await;
    let tasks = rig.task_store().await;
    put_task(
        &tasks,
        "failed",
        Some(&rig.hooks.url("/again")),
        Some(EndState::Cancelled),
    )
    .await;
    report(&tasks, "failed", DeliveryState::Failed, 503).await;
    let _api = rig
        .site
        .worker(WORKER, "api")
        .env(env::API_PORT, "0")
        .env(env::API_HOST, "127.0.0.1")
        .env(env::BASIC_AUTH_USERNAME, CLIENT)
        .env(env::BASIC_AUTH_PASSWORD, "a secret of the test")
        .start()
        .unwrap();
    let resent = webhooks(&rig, &["resend", "failed"]).await;
    assert!(resent.status.success(), "{resent:?}");
    let report = eventually("the webhook delivered", STEP_TIMEOUT, async || {
        let report = tasks.webhook_report(&id("failed")).await?;
        anyhow::Ok(report.filter(|report| report.state == DeliveryState::Delivered))
    })
    .await;
    assert_eq!((report.attempts, report.status), (1, Some(200)));
    let requests = rig.hooks.requests_to("/again");
    let [request] = requests.as_slice() else {
        panic!("one webhook, not {requests:?}");
    };
    assert_eq!(request.json()["type"], "task.cancelled");
}
