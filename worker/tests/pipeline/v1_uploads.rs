//! Uploaders of tasks of the HTTP API v1: `kill -9` between their stages, and previews that they cannot make or store.

use std::collections::BTreeMap;

use axum::http::Method;
use separation_contract::api_task::{ApiTask, Output};
use separation_contract::environment as env;
use separation_contract::message::{Task, TaskId};
use separation_testbed::{eventually, tiny_song};
use separation_worker::task_store::{EndState, InputSource, StoredInput, StoredTask, TaskStore, VERSION};

use crate::fault_proxy::{Fault, FaultProxy};
use crate::rig::{Rig, STEP_TIMEOUT, killed_at};

const CLIENT: &str = "acme";

/// Later than any webhook that a test schedules.
const LATER: u64 = 4_000_000_000;

/// Fault points in their order.
const POINTS: [&str; 11] = [
    "received",
    "attempt_recorded",
    "stem_uploaded",
    "uploaded",
    "previews_stored",
    "webhook_scheduled",
    "outcome_written",
    "worked",
    "published",
    "committed",
    "cleaned",
];

/// Posts a song as the API does.
async fn post(rig: &Rig, tasks: &TaskStore, seed: u64) -> TaskId {
    let (id, path) = rig.site.put_song(&tiny_song(seed)).unwrap();
    let id = TaskId::parse(&id).unwrap();
    let v1 = ApiTask {
        client: CLIENT.into(),
        output: Output::default(),
    };
    let record = StoredTask {
        version: VERSION,
        id: id.clone(),
        client: CLIENT.into(),
        fingerprint: String::new(),
        created_at: 1,
        input: StoredInput {
            source: InputSource::File,
            file_name: None,
            duration_seconds: None,
        },
        output: v1.output.clone(),
        webhook_url: Some("https://hooks.example/done".into()),
        metadata: BTreeMap::new(),
        traceparent: String::new(),
    };
    tasks.create_task(&record).await.unwrap();
    tasks.put_open(CLIENT, &id).await.unwrap();
    let message = Task::new(id.clone(), path.display().to_string(), None, 1).with_v1(v1);
    rig.kafka
        .publish(&rig.site.task_topic, id.as_str(), message.to_json(), &[])
        .await
        .unwrap();
    id
}

/// Names of a task's stored files, sorted.
async fn files(rig: &Rig, id: &TaskId) -> Vec<String> {
    let prefix = format!("v1/stems/{id}/");
    let stored = rig.s3.list(&rig.site.bucket, &prefix).await.unwrap();
    let names = stored
        .iter()
        .filter_map(|object| object.key.strip_prefix(&prefix));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Waits until a task has succeeded, and checks that it has its stems and no previews.
async fn check_without_previews(rig: &Rig, tasks: &TaskStore, id: &TaskId) {
    let outcome = eventually("the outcome", STEP_TIMEOUT, async || {
        anyhow::Ok(tasks.outcome(id).await?)
    })
    .await;
    assert_eq!(outcome.state, EndState::Succeeded);
    assert_eq!(files(rig, id).await, ["instrumental.wav", "vocals.wav"]);
}

/// Checks that a task has its outcome, its stems with previews, and a webhook to deliver.
async fn check(rig: &Rig, tasks: &TaskStore, id: &TaskId) {
    let outcome = tasks.outcome(id).await.unwrap().expect("an outcome");
    assert_eq!(outcome.state, EndState::Succeeded);
    assert_eq!(outcome.stems.len(), 2);
    let expected = [
        "instrumental.wav",
        "peaks.json",
        "preview_instrumental.flac",
        "preview_vocals.flac",
        "vocals.wav",
    ];
    assert_eq!(files(rig, id).await, expected);
    let deliveries = tasks.due_deliveries(LATER, 100).await.unwrap();
    assert!(deliveries.iter().any(|(_, delivery)| delivery.id == *id));
}

#[tokio::test]
async fn an_uploader_killed_between_any_two_stages_of_a_v1_task_ends_it_completely() {
    for point in POINTS {
        eprintln!("uploader killed at {point}");
        let rig = Rig::new(1).await;
        let tasks = rig.task_store().await;
        let posted = [post(&rig, &tasks, 1).await, post(&rig, &tasks, 2).await];
        let _processor = rig.processor().start().unwrap();
        let mark = rig.directory.path().join("mark");
        let killed = killed_at(rig.uploader(), point, &mark).start().unwrap();
        let code = killed.wait_exit(STEP_TIMEOUT).await.unwrap();
        assert_eq!(code, 128 + 9, "{:?}", killed.messages());
        let _next = rig.uploader().start().unwrap();
        eventually("the outcomes", STEP_TIMEOUT, async || {
            let [first, second] = &posted;
            let ended = (tasks.outcome(first).await?, tasks.outcome(second).await?);
            anyhow::Ok(ended.0.is_some() && ended.1.is_some())
        })
        .await;
        rig.wait_until_committed().await;
        for id in &posted {
            check(&rig, &tasks, id).await;
        }
        assert_eq!(tasks.count_open(CLIENT, 10).await.unwrap(), 0);
        let all = rig.s3.list(&rig.site.bucket, "").await.unwrap();
        assert!(all.iter().all(|object| object.key.starts_with("v1/")), "{all:?}");
        rig.no_dead_letters().await;
    }
}

#[tokio::test]
async fn previews_that_the_store_refuses_hold_no_task() {
    let rig = Rig::new(1).await;
    let proxy = FaultProxy::start(rig.s3.address(), |request| {
        let is_preview = request.method == Method::PUT && request.path.contains("/preview_");
        is_preview.then_some(Fault::Status(503))
    })
    .await;
    let tasks = rig.task_store().await;
    let id = post(&rig, &tasks, 1).await;
    let _processor = rig.processor().start().unwrap();
    let uploader = rig.uploader().env(env::S3_ENDPOINT_URL, proxy.endpoint());
    let _uploader = uploader.start().unwrap();
    check_without_previews(&rig, &tasks, &id).await;
    assert!(!proxy.failed().is_empty());
}

#[tokio::test]
async fn an_uploader_without_scratch_space_stores_stems_without_previews() {
    let rig = Rig::new(1).await;
    let no_directory = rig.hold();
    let tasks = rig.task_store().await;
    let posted = [post(&rig, &tasks, 1).await, post(&rig, &tasks, 2).await];
    let _processor = rig.processor().start().unwrap();
    let uploader = rig.uploader().env(env::SCRATCH_DIR, &no_directory);
    let uploader = uploader.start().unwrap();
    for id in &posted {
        check_without_previews(&rig, &tasks, id).await;
    }
    let messages = uploader.messages().unwrap();
    let warnings = messages
        .iter()
        .filter(|message| message.contains("scratch directory"));
    assert_eq!(warnings.count(), 1, "{messages:?}");
}
