//! An object store that fails, stands still, breaks off or is away: tasks wait for it and are not lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use separation_contract::environment as env;
use separation_testbed::{Record, TcpProxy, Worker, WorkerOptions, eventually, song, tiny_song};

use crate::front::{Asked, Fault, Front};
use crate::rig::{PATIENCE, Rig, held_at, separations};

/// The same worker, with the store behind `endpoint`.
fn through(options: WorkerOptions, endpoint: &str) -> WorkerOptions {
    options.env(env::S3_ENDPOINT_URL, endpoint)
}

fn tried_again(worker: &Worker) -> usize {
    let messages = worker.messages().unwrap();
    messages
        .iter()
        .filter(|message| *message == "Trying again")
        .count()
}

/// Each request fails when it is asked for the first time, and downloads also the next two times.
fn stumbling(asked: &Asked<'_>) -> Option<Fault> {
    match (asked.before, asked.method == Method::GET) {
        (0, _) => Some(Fault::Status(500)),
        (1, true) => Some(Fault::Status(503)),
        (2, true) => Some(Fault::Cut),
        _ => None,
    }
}

/// Results as they were published, that of each task in turn.
async fn results(rig: &Rig) -> Vec<Record> {
    rig.kafka.consume_all(&rig.site.result_topic).await.unwrap()
}

#[tokio::test]
async fn a_store_that_fails_each_request_at_first_loses_nothing() {
    let rig = Rig::new(1).await;
    let front = Front::start(rig.s3.address(), stumbling).await;
    let tasks = rig.submit_many(2).await;
    let _processor = through(rig.processor(), &front.endpoint()).start().unwrap();
    let uploader = through(rig.uploader(), &front.endpoint()).start().unwrap();
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    assert!(tried_again(&uploader) > 0);
    assert!(tasks.iter().all(|task| rig.webhooks(task).len() == 1));
    let failed = front.failed();
    for what in ["PUT", "Status(500)", "Status(503)", "_vocals.wav", ".json"] {
        assert!(failed.iter().any(|failed| failed.contains(what)), "{failed:?}");
    }
}

#[tokio::test]
async fn a_store_that_fails_each_request_at_first_loses_nothing_when_songs_and_stems_wait_in_it() {
    let rig = Rig::new(1).await;
    let front = Front::start(rig.s3.address(), stumbling).await;
    let mut tasks = std::collections::BTreeSet::new();
    for seed in 0..2 {
        tasks.insert(rig.submit_object(tiny_song(seed)).await);
    }
    let start = |options| {
        let options = rig.staged_in_s3(options);
        through(options, &front.endpoint()).start().unwrap()
    };
    let (processor, uploader) = (start(rig.processor()), start(rig.uploader()));
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    assert!(tried_again(&uploader) > 0 && tried_again(&processor) > 0);
    assert!(tasks.iter().all(|task| rig.webhooks(task).len() == 1));
    let failed = front.failed();
    assert!(
        failed
            .iter()
            .any(|failed| failed.contains("_input.wav") && failed.ends_with("Cut")),
        "{failed:?}"
    );
    let separated = processor.messages().unwrap();
    let separated = separated.iter().filter(|message| *message == "Separated");
    assert_eq!(separated.count(), 2, "what failed was storing, not separating");
}

#[tokio::test]
async fn a_store_that_breaks_off_is_away_and_is_slow_loses_nothing() {
    let rig = Rig::new(1).await;
    let proxy = TcpProxy::start(rig.s3.address()).await.unwrap();
    let endpoint = format!("http://{}", proxy.address());
    // In the middle of the vocals: each stem has 530 kB.
    proxy.cut_after(200_000);
    let first = rig.submit_object(song(3.0, 1)).await;
    let start = |options| through(rig.staged_in_s3(options), &endpoint).start().unwrap();
    let (processor, uploader) = (start(rig.processor()), start(rig.uploader()));
    processor.wait_for_log("Trying again", PATIENCE).await.unwrap();
    let first = [first].into();
    rig.all_told(&first).await;
    proxy.refuse();
    let before = tried_again(&processor);
    let second = [rig.submit_object(tiny_song(2)).await].into();
    processor
        .wait_for_logs("Trying again", before + 2, PATIENCE)
        .await
        .unwrap();
    proxy.forward();
    rig.all_told(&second).await;
    proxy.delay(Duration::from_millis(50));
    let third = [rig.submit_object(song(3.0, 3)).await].into();
    rig.all_told(&third).await;
    rig.run_dry().await;
    for tasks in [first, second, third] {
        rig.check_done(&tasks).await;
    }
    assert_eq!((processor.exit_code(), uploader.exit_code()), (None, None));
}

#[tokio::test]
async fn a_store_that_is_away_for_longer_than_a_task_may_take_fails_no_task() {
    let rig = Rig::new(1).await;
    let proxy = TcpProxy::start(rig.s3.address()).await.unwrap();
    let _processor = rig.processor().start().unwrap();
    let uploader = through(rig.uploader(), &format!("http://{}", proxy.address()));
    let uploader = uploader.env(env::TASK_TIMEOUT_SECONDS, "3").start().unwrap();
    uploader
        .wait_for_log("Partitions assigned", PATIENCE)
        .await
        .unwrap();
    proxy.refuse();
    let tasks = rig.submit_many(2).await;
    let held = uploader.wait_for_log("On hold", PATIENCE).await.unwrap();
    assert_eq!(held.fields["dependency"], "s3:unreachable", "{held:?}");
    let pauses = tried_again(&uploader);
    assert!(pauses > 0);
    // Longer than the task's own time.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        rig.hooks.requests_to("/hook").is_empty(),
        "nobody hears of a failure"
    );
    proxy.forward();
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    rig.no_dead_letters().await;
    assert!(tasks.iter().all(|task| rig.webhooks(task).len() == 1));
}

/// A processor that published a task's manifest through a proxy and got no answer.
async fn without_an_answer_to_its_manifest(rig: &Rig) -> (Worker, TcpProxy, String) {
    let proxy = TcpProxy::start(rig.s3.address()).await.unwrap();
    let hold = rig.hold();
    let processor = rig.staged_in_s3(rig.processor());
    let processor = through(processor, &format!("http://{}", proxy.address()));
    let processor = held_at(processor, "stored", &hold).start().unwrap();
    let task = rig.submit_object(tiny_song(1)).await;
    processor.wait_for_log("Held", PATIENCE).await.unwrap();
    proxy.withhold_answers();
    std::fs::remove_file(&hold).unwrap();
    let manifest = format!("staging/{task}/manifest.json");
    eventually("the manifest stored", PATIENCE, async || {
        anyhow::Ok(rig.s3.get(&rig.site.bucket, &manifest).await?.is_some())
    })
    .await;
    (processor, proxy, task)
}

#[tokio::test]
async fn stems_whose_manifest_was_stored_are_kept_by_a_worker_that_did_not_get_the_answer() {
    let rig = Rig::new(1).await;
    let (first, proxy, task) = without_an_answer_to_its_manifest(&rig).await;
    first.sigstop().unwrap();
    let second = rig.staged_in_s3(rig.processor()).start().unwrap();
    second
        .wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    // What the first one asks from now on is answered; what it asked before is not.
    proxy.forward();
    proxy.cut();
    first.sigcont().unwrap();
    first
        .wait_for_log("The message went to another worker", PATIENCE)
        .await
        .unwrap();
    let _uploader = rig.staged_in_s3(rig.uploader()).start().unwrap();
    let tasks = [task].into();
    rig.all_told(&tasks).await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn a_processor_killed_before_it_gets_the_answer_to_its_manifest_repeats_nothing() {
    let rig = Rig::new(1).await;
    let (killed, _proxy, task) = without_an_answer_to_its_manifest(&rig).await;
    killed.kill_9().await.unwrap();
    let next = rig.staged_in_s3(rig.processor()).start().unwrap();
    let _uploader = rig.staged_in_s3(rig.uploader()).start().unwrap();
    let tasks = [task].into();
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    assert_eq!(separations([&killed, &next]), 1);
}

#[tokio::test]
async fn a_failed_message_that_is_put_back_succeeds_when_the_store_is_well_again() {
    let rig = Rig::new(1).await;
    let ill = Arc::new(AtomicBool::new(true));
    let still_ill = Arc::clone(&ill);
    let front = Front::start(rig.s3.address(), move |asked| {
        let concerned = asked.path.ends_with("_input.wav") || asked.path.ends_with("_vocals.wav");
        (concerned && still_ill.load(Ordering::Relaxed)).then_some(Fault::Status(503))
    })
    .await;
    let start = |options| {
        through(rig.staged_in_s3(options), &front.endpoint())
            .env(env::ON_FAILURE, "RetryOnFailure")
            .env(env::MAX_RETRIES, "1000")
            .env(env::TASK_TIMEOUT_SECONDS, "1")
            .start()
            .unwrap()
    };
    let put_back = async |topic: &str, task: &str| {
        eventually("a message put back", PATIENCE, async || {
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
    let again = put_back(&rig.site.task_topic, &task).await;
    assert_eq!(again.json()["timestamp"], 1_763_683_200, "all other fields stay");
    assert!(results(&rig).await.is_empty(), "nobody hears of a failure yet");
    ill.store(false, Ordering::Relaxed);
    eventually("a result", PATIENCE, async || results(&rig).await.len() == 1).await;
    ill.store(true, Ordering::Relaxed);
    let uploader = start(rig.uploader());
    put_back(&rig.site.result_topic, &task).await;
    assert!(rig.webhooks(&task).is_empty());
    ill.store(false, Ordering::Relaxed);
    let tasks = [task].into();
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    assert_eq!((processor.exit_code(), uploader.exit_code()), (None, None));
}
