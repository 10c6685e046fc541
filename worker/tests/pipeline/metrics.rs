//! Every metric family of a role changes while the role works: one that does not is useless.

use std::collections::BTreeSet;

use separation_contract::environment as env;
use separation_testbed::{Kafka, KafkaOptions, Worker, eventually};
use separation_worker::telemetry::{ApiMetrics, Families, Metrics};

use crate::authentication::with_credentials;
use crate::placement::{self, Api};
use crate::rig::{Rig, STEP_TIMEOUT, WORKER, admin, ask, held_at};
use crate::v1_api::schedule_webhook;

/// Families that only processors change.
const PROCESSOR_ONLY: [&str; 2] = [
    "separation_audio_seconds_total",
    "separation_audio_processing_seconds_total",
];

/// Families that only uploaders and the API change.
const WEBHOOKS: &str = "separation_webhooks_total";

/// The families with a sample that is not 0.
async fn moved(worker: &Worker) -> BTreeSet<String> {
    let (_, text) = ask(admin(worker).await, "/metrics").await.unwrap();
    let (mut family, mut moved) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split(' ').next().unwrap().to_owned();
        } else if !line.starts_with('#') && !line.ends_with(" 0") {
            moved.insert(family.clone());
        }
    }
    moved
}

/// Checks that all families except those of other roles changed.
#[track_caller]
fn check(moved: &BTreeSet<String>, families: &Families, of_other_roles: &[&str]) {
    let registered = families.all().iter().map(|family| family.name.as_str());
    let expected: BTreeSet<&str> = registered
        .filter(|name| !is_of_process(name) && !of_other_roles.contains(name))
        .collect();
    let moved_by_worker = moved.iter().map(String::as_str);
    let moved_by_worker: BTreeSet<&str> = moved_by_worker.filter(|name| !is_of_process(name)).collect();
    assert_eq!(moved_by_worker, expected);
    for name in ["process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(moved.contains(name), "{name} is not in {moved:?}");
    }
}

/// Whether the operating system reports the family: CPU time is in whole seconds, and limits may be absent.
fn is_of_process(name: &str) -> bool {
    name.starts_with("process_")
}

/// A malformed message whose dead letter the brokers refuse: it is longer than [`limited`] allows.
fn refused() -> String {
    "x".repeat(5_000)
}

/// A dead-letter topic for `topic` with a limit on the message size.
async fn limited(rig: &Rig, topic: &str) -> String {
    let name = format!("limited-{topic}");
    let limit = [("max.message.bytes", "2000")];
    rig.kafka.create_topic_with(&name, 1, &limit).await.unwrap();
    name
}

/// Families that change while a message is processed, after it and a malformed one, and while a dead letter is refused.
async fn moved_by_work(
    rig: &Rig,
    worker: &Worker,
    (group, topic): (&str, &str),
    hold: &std::path::Path,
) -> BTreeSet<String> {
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let mut moved_so_far = moved(worker).await;
    rig.kafka.publish(topic, "a", "malformed", &[]).await.unwrap();
    std::fs::remove_file(hold).unwrap();
    let malformed = "The message is malformed";
    worker.wait_for_log(malformed, STEP_TIMEOUT).await.unwrap();
    eventually("all messages committed", STEP_TIMEOUT, async || {
        anyhow::Ok(rig.kafka.total_lag(group, topic).await? == 0)
    })
    .await;
    rig.kafka.publish(topic, "a", refused(), &[]).await.unwrap();
    worker.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    eventually("the refusal reported", STEP_TIMEOUT, async || {
        moved_so_far.extend(moved(worker).await);
        moved_so_far.contains("separation_held")
    })
    .await;
    moved_so_far
}

#[tokio::test]
async fn every_metric_of_processor_and_uploader_moves() {
    let rig = Rig::new(1).await;
    let (separating, uploading) = (rig.hold_of("separating"), rig.hold_of("uploading"));
    let (site, letters) = (&rig.site, env::KAFKA_DEAD_LETTER_TOPIC);
    let processor = rig
        .processor()
        .env(letters, limited(&rig, &site.task_topic).await);
    let processor = held_at(processor, "separated", &separating).start().unwrap();
    let uploader = rig
        .uploader()
        .env(letters, limited(&rig, &site.result_topic).await);
    let uploader = held_at(uploader, "uploaded", &uploading).start().unwrap();
    rig.submit(1).await;
    let (processor, uploader) = tokio::join!(
        moved_by_work(
            &rig,
            &processor,
            (&site.processor_group, &site.task_topic),
            &separating
        ),
        moved_by_work(
            &rig,
            &uploader,
            (&site.uploader_group, &site.result_topic),
            &uploading
        ),
    );
    check(&processor, &Metrics::new().families(), &[WEBHOOKS]);
    check(&uploader, &Metrics::new().families(), &PROCESSOR_ONLY);
}

/// One API that posts a task, and one that the brokers refuse and that delivers a webhook.
#[tokio::test]
async fn every_metric_of_the_api_moves() {
    let rig = Rig::new(1).await;
    let posting = Api::start(placement::api(&rig)).await;
    posting.post().await;
    let moved_by_task = moved(&posting.worker).await;
    drop(posting);
    schedule_webhook(&rig).await;
    let secure = KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(secure).await.unwrap();
    let api = rig
        .site
        .worker(WORKER, "api")
        .env(env::API_PORT, "0")
        .env(env::API_HOST, "127.0.0.1");
    let api = with_credentials(api, "SCRAM-SHA-512", "not-the-password", &kafka)
        .start()
        .unwrap();
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    assert_eq!(ask(address, "/health").await.unwrap().0, 200);
    let mut moved = eventually("the refusal and the webhook reported", STEP_TIMEOUT, async || {
        let reported =
            |moved: &BTreeSet<String>| moved.contains("separation_held") && moved.contains(WEBHOOKS);
        Some(moved(&api).await).filter(reported)
    })
    .await;
    moved.extend(moved_by_task);
    check(&moved, &ApiMetrics::new().families(), &[]);
}
