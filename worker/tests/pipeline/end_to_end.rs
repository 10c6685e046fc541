//! From a song posted over HTTP to its webhook, through real processes of every role.

use std::net::SocketAddr;

use bytes::Bytes;
use reqwest::StatusCode;
use separation_contract::environment as env;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{Kafka, KafkaOptions, Reply, Worker, WorkerOptions, eventually, tiny_song};
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT, held_at, http};

const PASSWORD: &str = "a secret of the test";

fn api(rig: &Rig) -> WorkerOptions {
    rig.site
        .worker(crate::rig::WORKER, "api")
        .env(env::API_PORT, "0")
        .env(env::API_HOST, "127.0.0.1")
        .env(env::BASIC_AUTH_PASSWORD, PASSWORD)
}

async fn address(api: &Worker) -> SocketAddr {
    api.address("API listens", STEP_TIMEOUT).await.unwrap()
}

/// Posts a song by its URL, as part of a trace.
async fn generate(rig: &Rig, api: SocketAddr, audio: &str, trace: &str) -> (StatusCode, Value) {
    let body = json!({ "audio": audio, "hook_url": rig.hooks.url("/hook") });
    let request = http()
        .post(format!("http://{api}/generate"))
        .basic_auth("admin", Some(PASSWORD))
        .header("traceparent", trace)
        .json(&body);
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until the API reports this status of a task.
async fn wait_for_status(api: SocketAddr, task: &str, status: &str) -> Value {
    eventually(&format!("task {status}"), STEP_TIMEOUT, async || {
        let request = http()
            .get(format!("http://{api}/tasks/{task}"))
            .basic_auth("admin", Some(PASSWORD));
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        anyhow::ensure!(answer["status"] == status, "{answer}");
        anyhow::Ok(Some(answer))
    })
    .await
}

fn serve_song(rig: &Rig) -> String {
    let song = Reply::Content("audio/wav".to_owned(), Bytes::from(tiny_song(1)));
    rig.hooks.script("/song.wav", [song]);
    rig.hooks.url("/song.wav")
}

/// All files in the directory of songs.
fn staged_files(rig: &Rig) -> Vec<String> {
    let entries = std::fs::read_dir(&rig.site.songs).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn from_post_to_webhook(rig: &Rig, staging: impl Fn(WorkerOptions) -> WorkerOptions) -> String {
    let api = staging(api(rig)).start().unwrap();
    let api_address = address(&api).await;
    let trace_id = uuid::Uuid::new_v4().simple().to_string();
    let trace = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let (status, queued) = generate(rig, api_address, &serve_song(rig), &trace).await;
    assert_eq!(
        (status, &queued["status"]),
        (StatusCode::OK, &"queued".into()),
        "{queued}"
    );
    let task = queued["task_uuid"].as_str().unwrap().to_owned();
    wait_for_status(api_address, &task, "queued").await;
    let hold = rig.hold();
    let _processor = held_at(staging(rig.processor()), "separated", &hold)
        .start()
        .unwrap();
    wait_for_status(api_address, &task, "processing").await;
    std::fs::remove_file(&hold).unwrap();
    wait_for_status(api_address, &task, "separated").await;
    let _uploader = staging(rig.uploader()).start().unwrap();
    let done = wait_for_status(api_address, &task, "done").await;
    let tasks = [task.clone()].into();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    for (group, topic) in [
        (&rig.site.processor_group, &rig.site.task_topic),
        (&rig.site.uploader_group, &rig.site.result_topic),
    ] {
        let lag = rig.kafka.lag(group, topic).await.unwrap();
        let record = OffsetMetadata::parse(&lag[0].metadata);
        assert!(record.last.is_some(), "the time of the message: {record:?}");
    }
    let (_, body) = rig.webhooks(&task).remove(0);
    for stem in ["vocals", "instrumental"] {
        assert_eq!(
            done[stem], body[stem],
            "the API and the webhook report the same URL"
        );
    }
    let hooks = rig.hooks.requests_to("/hook");
    let webhook_trace = hooks[0].header("traceparent").unwrap();
    assert!(webhook_trace.contains(&trace_id), "{webhook_trace} of {trace}");
    api.sigterm().unwrap();
    assert_eq!(api.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    task
}

#[tokio::test]
async fn a_song_posted_by_url_is_separated_and_its_webhook_called() {
    let rig = Rig::new(1).await;
    from_post_to_webhook(&rig, |options| options).await;
    eventually("the song and its record removed", STEP_TIMEOUT, async || {
        staged_files(&rig).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_song_posted_by_url_is_staged_in_the_object_store_if_configured() {
    let rig = Rig::new(1).await;
    let staging = format!("s3://{}/staging/", rig.site.bucket);
    let task = from_post_to_webhook(&rig, |options| options.env(env::S3_STAGING, &staging)).await;
    eventually("the staging cleaned", STEP_TIMEOUT, async || {
        let left = rig.s3.list(&rig.site.bucket, "staging/").await?;
        anyhow::ensure!(left.is_empty(), "{left:?} of {task}");
        anyhow::Ok(true)
    })
    .await;
    assert!(staged_files(&rig).is_empty(), "the directory is not used");
}

#[tokio::test]
async fn without_kafka_a_song_is_refused_and_nothing_is_staged() {
    let rig = Rig::new(1).await;
    let kafka = Kafka::start(KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    kafka.create_topic(&rig.site.task_topic, 1).await.unwrap();
    let api = api(&rig)
        .env(env::KAFKA_BOOTSTRAP_SERVERS, kafka.bootstrap())
        .start()
        .unwrap();
    let api_address = address(&api).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let song = serve_song(&rig);
    kafka.proxy(0).refuse();
    let (status, problem) = generate(&rig, api_address, &song, trace).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert!(problem["error"].is_string(), "{problem}");
    assert_eq!(
        rig.hooks.requests_to("/song.wav").len(),
        0,
        "no song is fetched without Kafka"
    );
    assert_eq!(staged_files(&rig), [""; 0]);
    let health = http().get(format!("http://{api_address}/health")).send().await;
    assert_eq!(health.unwrap().status(), StatusCode::OK);
    kafka.proxy(0).forward();
    eventually("the song accepted", STEP_TIMEOUT, async || {
        generate(&rig, api_address, &song, trace).await.0 == StatusCode::OK
    })
    .await;
    assert_eq!(kafka.consume_all(&rig.site.task_topic).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_incomplete_song_is_refused_and_nothing_is_staged() {
    let rig = Rig::new(1).await;
    let api = api(&rig).start().unwrap();
    let api_address = address(&api).await;
    let half = Bytes::from(tiny_song(1)).slice(..5_000);
    rig.hooks.script("/broken.wav", [Reply::BrokenOff(half)]);
    rig.hooks.script("/gone.wav", [Reply::Status(404)]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for path in ["/broken.wav", "/gone.wav"] {
        let (status, problem) = generate(&rig, api_address, &rig.hooks.url(path), trace).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
        assert!(problem["error"].is_string(), "{problem}");
    }
    eventually("nothing left", STEP_TIMEOUT, async || {
        staged_files(&rig).is_empty()
    })
    .await;
    let tasks = rig.kafka.consume_all(&rig.site.task_topic).await.unwrap();
    assert_eq!(tasks, []);
}

#[tokio::test]
async fn a_missing_result_topic_is_created_with_the_partitions_of_the_task_topic() {
    let rig = Rig::new(3).await;
    let missing = format!("later-{}", rig.site.result_topic);
    let _uploader = rig
        .uploader()
        .env(env::KAFKA_RESULT_TOPIC, &missing)
        .start()
        .unwrap();
    let _processor = rig
        .processor()
        .env(env::KAFKA_RESULT_TOPIC, &missing)
        .start()
        .unwrap();
    eventually("the result topic created", STEP_TIMEOUT, async || {
        let lag = rig.kafka.lag("no-group", &missing).await?;
        anyhow::ensure!(lag.len() == 3, "{lag:?}");
        anyhow::Ok(true)
    })
    .await;
}
