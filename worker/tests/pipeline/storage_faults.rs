//! An object store that fails, stalls, breaks connections or is unreachable: tasks stay queued and are not lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use separation_contract::environment as env;
use separation_testbed::{Record, TcpProxy, Worker, WorkerOptions, eventually, song, tiny_song};

use crate::fault_proxy::{Fault, FaultProxy, ProxiedRequest};
use crate::rig::{Rig, STEP_TIMEOUT, held_at, separations};

/// The same worker, with the store behind `endpoint`.
fn through(options: WorkerOptions, endpoint: &str) -> WorkerOptions {
    options.env(env::S3_ENDPOINT_URL, endpoint)
}

fn retries(worker: &Worker) -> usize {
    let messages = worker.messages().unwrap();
    messages
        .iter()
        .filter(|message| *message == "Step failed; retrying")
        .count()
}

/// Each request fails the first time, and downloads also the next two times.
fn stumbling(request: &ProxiedRequest<'_>) -> Option<Fault> {
    match (request.before, request.method == Method::GET) {
        (0, _) => Some(Fault::Status(500)),
        (1, true) => Some(Fault::Status(503)),
        (2, true) => Some(Fault::Cut),
        _ => None,
    }
}

/// The published results, in order.
async fn results(rig: &Rig) -> Vec<Record> {
    rig.kafka.consume_all(&rig.site.result_topic).await.unwrap()
}

#[tokio::test]
async fn a_store_that_fails_each_request_at_first_loses_nothing() {
    let rig = Rig::new(1).await;
    let proxy = FaultProxy::start(rig.s3.address(), stumbling).await;
    let tasks = rig.submit_many(2).await;
    let _processor = through(rig.processor(), &proxy.endpoint()).start().unwrap();
    let uploader = through(rig.uploader(), &proxy.endpoint()).start().unwrap();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    assert!(retries(&uploader) > 0);
    assert!(tasks.iter().all(|task| rig.webhooks(task).len() == 1));
    let failed = proxy.failed();
    for part in ["PUT", "Status(500)", "Status(503)", "_vocals.wav", ".json"] {
        assert!(failed.iter().any(|failed| failed.contains(part)), "{failed:?}");
    }
}

#[tokio::test]
async fn a_store_that_fails_each_request_at_first_loses_nothing_when_songs_and_stems_are_staged_in_it() {
    let rig = Rig::new(1).await;
    let proxy = FaultProxy::start(rig.s3.address(), stumbling).await;
    let mut tasks = std::collections::BTreeSet::new();
    for seed in 0..2 {
        tasks.insert(rig.submit_object(tiny_song(seed)).await);
    }
    let start = |options| {
        let options = rig.staged_in_s3(options);
        through(options, &proxy.endpoint()).start().unwrap()
    };
    let (processor, uploader) = (start(rig.processor()), start(rig.uploader()));
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    assert!(retries(&uploader) > 0 && retries(&processor) > 0);
    assert!(tasks.iter().all(|task| rig.webhooks(task).len() == 1));
    let failed = proxy.failed();
    assert!(
        failed
            .iter()
            .any(|failed| failed.contains("_input.wav") && failed.ends_with("Cut")),
        "{failed:?}"
    );
    let separated = processor.messages().unwrap();
    let separated = separated.iter().filter(|message| *message == "Separated");
    assert_eq!(separated.count(), 2, "storing failed, not separating");
}

#[tokio::test]
async fn a_store_that_breaks_connections_is_unreachable_and_slow_loses_nothing() {
    let rig = Rig::new(1).await;
    let proxy = TcpProxy::start(rig.s3.address()).await.unwrap();
    let endpoint = format!("http://{}", proxy.address());
    // During the upload of the vocals: each stem has 530 kB.
    proxy.cut_after(200_000);
    let first = rig.submit_object(song(3.0, 1)).await;
    let start = |options| through(rig.staged_in_s3(options), &endpoint).start().unwrap();
    let (processor, uploader) = (start(rig.processor()), start(rig.uploader()));
    processor
        .wait_for_log("Step failed; retrying", STEP_TIMEOUT)
        .await
        .unwrap();
    let first = [first].into();
    rig.wait_for_webhooks(&first).await;
    proxy.refuse();
    let before = retries(&processor);
    let second = [rig.submit_object(tiny_song(2)).await].into();
    processor
        .wait_for_logs("Step failed; retrying", before + 2, STEP_TIMEOUT)
        .await
        .unwrap();
    proxy.forward();
    rig.wait_for_webhooks(&second).await;
    proxy.delay(Duration::from_millis(50));
    let third = [rig.submit_object(song(3.0, 3)).await].into();
    rig.wait_for_webhooks(&third).await;
    rig.wait_until_committed().await;
    for tasks in [first, second, third] {
        rig.check_done(&tasks).await;
    }
    assert_eq!((processor.exit_code(), uploader.exit_code()), (None, None));
}

#[tokio::test]
async fn a_store_that_is_unreachable_for_longer_than_a_tasks_limit_fails_no_task() {
    let rig = Rig::new(1).await;
    let proxy = TcpProxy::start(rig.s3.address()).await.unwrap();
    let _processor = rig.processor().start().unwrap();
    let uploader = through(rig.uploader(), &format!("http://{}", proxy.address()));
    let uploader = uploader.env(env::TASK_TIMEOUT_SECONDS, "3").start().unwrap();
    uploader
        .wait_for_log("Partitions assigned", STEP_TIMEOUT)
        .await
        .unwrap();
    proxy.refuse();
    let tasks = rig.submit_many(2).await;
    let held = uploader.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    assert_eq!(held.fields["dependency"], "s3:unreachable", "{held:?}");
    let pauses = retries(&uploader);
    assert!(pauses > 0);
    // Longer than the task's time limit.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        rig.hooks.requests_to("/hook").is_empty(),
        "no webhook reports a failure"
    );
    proxy.forward();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    rig.no_dead_letters().await;
    assert!(tasks.iter().all(|task| rig.webhooks(task).len() == 1));
}

/// A processor that published a task's manifest through a proxy and got no response.
async fn without_response_to_its_manifest(rig: &Rig) -> (Worker, TcpProxy, String) {
    let proxy = TcpProxy::start(rig.s3.address()).await.unwrap();
    let hold = rig.hold();
    let processor = rig.staged_in_s3(rig.processor());
    let processor = through(processor, &format!("http://{}", proxy.address()));
    let processor = held_at(processor, "stored", &hold).start().unwrap();
    let task = rig.submit_object(tiny_song(1)).await;
    processor.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    proxy.withhold_responses();
    std::fs::remove_file(&hold).unwrap();
    let manifest = format!("staging/{task}/manifest.json");
    eventually("the manifest stored", STEP_TIMEOUT, async || {
        anyhow::Ok(rig.s3.get(&rig.site.bucket, &manifest).await?.is_some())
    })
    .await;
    (processor, proxy, task)
}

#[tokio::test]
async fn a_worker_that_got_no_response_to_its_manifest_keeps_the_stems() {
    let rig = Rig::new(1).await;
    let (first, proxy, task) = without_response_to_its_manifest(&rig).await;
    first.sigstop().unwrap();
    let second = rig.staged_in_s3(rig.processor()).start().unwrap();
    second
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    // New requests of the first one get responses; its earlier requests do not.
    proxy.forward();
    proxy.cut();
    first.sigcont().unwrap();
    first
        .wait_for_log("The message's partition is no longer assigned", STEP_TIMEOUT)
        .await
        .unwrap();
    let _uploader = rig.staged_in_s3(rig.uploader()).start().unwrap();
    let tasks = [task].into();
    rig.wait_for_webhooks(&tasks).await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn a_processor_killed_before_the_response_to_its_manifest_repeats_nothing() {
    let rig = Rig::new(1).await;
    let (killed, _proxy, task) = without_response_to_its_manifest(&rig).await;
    killed.kill_9().await.unwrap();
    let next = rig.staged_in_s3(rig.processor()).start().unwrap();
    let _uploader = rig.staged_in_s3(rig.uploader()).start().unwrap();
    let tasks = [task].into();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    assert_eq!(separations([&killed, &next]), 1);
}

#[tokio::test]
async fn a_requeued_message_succeeds_when_the_store_has_recovered() {
    let rig = Rig::new(1).await;
    let failing = Arc::new(AtomicBool::new(true));
    let still_failing = Arc::clone(&failing);
    let proxy = FaultProxy::start(rig.s3.address(), move |request| {
        let is_affected = request.path.ends_with("_input.wav") || request.path.ends_with("_vocals.wav");
        (is_affected && still_failing.load(Ordering::Relaxed)).then_some(Fault::Status(503))
    })
    .await;
    let start = |options| {
        through(rig.staged_in_s3(options), &proxy.endpoint())
            .env(env::ON_FAILURE, "RetryOnFailure")
            .env(env::MAX_RETRIES, "1000")
            .env(env::TASK_TIMEOUT_SECONDS, "1")
            .start()
            .unwrap()
    };
    let requeued = async |topic: &str, task: &str| {
        eventually("a requeued message", STEP_TIMEOUT, async || {
            let records = rig.kafka.consume_all(topic).await?;
            let found = records
                .into_iter()
                .find(|record| record.json()["retry_count"] == 2);
            anyhow::Ok(found.filter(|record| record.key_text() == task))
        })
        .await
    };
    let task = rig.submit_object(tiny_song(1)).await;
    let processor = start(rig.processor());
    let again = requeued(&rig.site.task_topic, &task).await;
    assert_eq!(again.json()["timestamp"], 1_763_683_200, "all other fields stay");
    assert!(results(&rig).await.is_empty(), "no failure is published yet");
    failing.store(false, Ordering::Relaxed);
    eventually("a result", STEP_TIMEOUT, async || results(&rig).await.len() == 1).await;
    failing.store(true, Ordering::Relaxed);
    let uploader = start(rig.uploader());
    requeued(&rig.site.result_topic, &task).await;
    assert!(rig.webhooks(&task).is_empty());
    failing.store(false, Ordering::Relaxed);
    let tasks = [task].into();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    assert_eq!((processor.exit_code(), uploader.exit_code()), (None, None));
}
