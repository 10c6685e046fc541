//! Dependencies that refuse the workers: every task stays queued, none fails, and work continues after the repair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use separation_contract::environment as env;
use separation_contract::names::dead_letter_topic;
use separation_testbed::{Worker, eventually, tiny_song};
use separation_worker::model::sha256_of_file;

use crate::fault_proxy::{Fault, FaultProxy};
use crate::rig::{Rig, STEP_TIMEOUT, admin, ask, print_resumed, refusal_duration};

/// Time within which the first task is finished after a repair.
const RESUMES_WITHIN: Duration = Duration::from_secs(30);

/// Webhooks delivered before the first refusal; the second refusal begins after twice as many.
const BEFORE: usize = 25;

/// Name of a refusal, how it starts, and how it ends.
type Refusal<'t> = (&'static str, &'t dyn Fn(), &'t dyn Fn());

/// Number of webhooks so far.
fn delivered(rig: &Rig) -> usize {
    rig.hooks.requests_to("/hook").len()
}

async fn wait_for_deliveries(rig: &Rig, count: usize) {
    eventually("tasks done", STEP_TIMEOUT, async || delivered(rig) >= count).await;
}

/// Checks that both workers report the refusal, and that no task is finished during it.
async fn check_held(rig: &Rig, workers: [&Worker; 2], before: [usize; 2], begun: Instant) {
    for (worker, before) in workers.iter().zip(before) {
        worker
            .wait_for_logs("On hold", before + 1, STEP_TIMEOUT)
            .await
            .unwrap();
    }
    let done = delivered(rig);
    tokio::time::sleep(refusal_duration().saturating_sub(begun.elapsed())).await;
    assert_eq!(
        delivered(rig),
        done,
        "no task is finished while the store refuses"
    );
}

fn holds(worker: &Worker) -> usize {
    let messages = worker.messages().unwrap();
    messages
        .iter()
        .filter(|message| message.starts_with("On hold"))
        .count()
}

#[tokio::test]
async fn refusals_by_the_store_during_100_tasks_fail_none() {
    let rig = Rig::new(2).await;
    let wrong_secret = Arc::new(AtomicBool::new(false));
    let is_wrong = Arc::clone(&wrong_secret);
    let proxy = FaultProxy::start(rig.s3.address(), move |_| {
        is_wrong.load(Ordering::Relaxed).then_some(Fault::WrongSecret)
    })
    .await;
    let mut tasks = std::collections::BTreeSet::new();
    for number in 0..50 {
        tasks.insert(rig.submit_object(tiny_song(number)).await);
    }
    let start = |options: separation_testbed::WorkerOptions| {
        rig.staged_in_s3(options)
            .env(env::S3_ENDPOINT_URL, proxy.endpoint())
            // A tenth of a refusal's duration.
            .env(env::TASK_TIMEOUT_SECONDS, "2")
            .start()
            .unwrap()
    };
    let (processor, uploader) = (start(rig.processor()), start(rig.uploader()));
    let refusals: [Refusal<'_>; 2] = [
        (
            "a wrong S3 secret",
            &|| wrong_secret.store(true, Ordering::Relaxed),
            &|| wrong_secret.store(false, Ordering::Relaxed),
        ),
        (
            "a missing bucket",
            &|| rig.s3.hide_bucket(&rig.site.bucket).unwrap(),
            &|| rig.s3.restore_bucket(&rig.site.bucket).unwrap(),
        ),
    ];
    for (number, (refusal, refuse, repair)) in refusals.into_iter().enumerate() {
        wait_for_deliveries(&rig, BEFORE * (number + 1)).await;
        // The processor may be far ahead of the uploader, and must have tasks too.
        for number in 0..25 {
            tasks.insert(rig.submit_object(tiny_song(number)).await);
        }
        // The uploader may have no results left, and must have some too.
        uploader.sigstop().unwrap();
        eventually("results that are not uploaded", STEP_TIMEOUT, async || {
            let site = &rig.site;
            let lag = rig
                .kafka
                .total_lag(&site.uploader_group, &site.result_topic)
                .await?;
            anyhow::Ok(lag >= 3)
        })
        .await;
        let workers = [&processor, &uploader];
        let before = workers.map(holds);
        let begun = Instant::now();
        refuse();
        uploader.sigcont().unwrap();
        check_held(&rig, workers, before, begun).await;
        repair();
        let repaired = Instant::now();
        let done = delivered(&rig);
        wait_for_deliveries(&rig, done + 1).await;
        let resumed = repaired.elapsed();
        print_resumed(refusal, resumed);
        assert!(resumed < RESUMES_WITHIN, "{resumed:?}");
    }
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    rig.check_results(&tasks).await;
    rig.no_dead_letters().await;
    assert_eq!((processor.exit_code(), uploader.exit_code()), (None, None));
}

/// A proxy that refuses every request while the flag is set.
pub(crate) async fn refusing(rig: &Rig) -> (FaultProxy, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&refuses);
    let proxy = FaultProxy::start(rig.s3.address(), move |_| {
        still.load(Ordering::Relaxed).then_some(Fault::WrongSecret)
    })
    .await;
    (proxy, refuses)
}

#[tokio::test]
async fn a_worker_on_hold_reports_it_and_leaves_its_message_when_it_is_asked_to_stop() {
    let rig = Rig::new(1).await;
    let (proxy, refuses) = refusing(&rig).await;
    let tasks = rig.submit_many(1).await;
    let processor = rig.processor().start().unwrap();
    let uploader = || {
        let uploader = rig.uploader().env(env::S3_ENDPOINT_URL, proxy.endpoint());
        uploader.env(env::MAX_ATTEMPTS, "1").start().unwrap()
    };
    let first = uploader();
    first.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    let address = admin(&first).await;
    let (status, ready) = ask(address, "/ready").await.unwrap();
    assert_eq!(status, 200, "another worker would be refused, too");
    assert!(
        ready.contains("held: s3:SignatureDoesNotMatch") && ready.contains("fix: "),
        "{ready}"
    );
    let (_, metrics) = ask(address, "/metrics").await.unwrap();
    assert!(
        metrics.contains("separation_held{dependency=\"s3:SignatureDoesNotMatch\"} 1"),
        "{metrics}"
    );
    let (group, topic) = (&rig.site.uploader_group, &rig.site.result_topic);
    let record = async || {
        let lag = rig.kafka.lag(group, topic).await?;
        anyhow::Ok(lag[0].metadata.clone())
    };
    eventually("the hold in the offset metadata", STEP_TIMEOUT, async || {
        let record = record().await?;
        anyhow::Ok(record.contains("held=s3:SignatureDoesNotMatch@") && !record.contains("attempt="))
    })
    .await;
    let begin = Instant::now();
    first.sigterm().unwrap();
    assert_eq!(first.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(
        !record().await.unwrap().contains("held="),
        "the hold is removed from the metadata"
    );
    // Only one attempt is allowed, so an attempt that counted would have been the last.
    let second = uploader();
    second.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    refuses.store(false, Ordering::Relaxed);
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    assert_eq!((processor.exit_code(), second.exit_code()), (None, None));
}

#[tokio::test]
async fn a_processor_without_its_model_waits_for_it() {
    let rig = Rig::new(1).await;
    let models = rig.directory.subdirectory("models").unwrap();
    let tasks = rig.submit_many(1).await;
    let processor = rig.processor().env(env::MODEL_FILE_DIR, models.to_str().unwrap());
    let processor = processor.start().unwrap();
    let held = processor.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    assert_eq!(held.fields["dependency"], "model:missing", "{held:?}");
    for file in std::fs::read_dir(crate::rig::MODELS).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("identity_tiny") {
            std::fs::copy(file.path(), models.join(file.file_name())).unwrap();
        }
    }
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
}

#[tokio::test]
async fn a_processor_whose_model_or_parameters_are_not_at_its_address_waits_for_them() {
    let rig = Rig::new(1).await;
    let tasks = rig.submit_many(1).await;
    let model = std::path::Path::new(crate::rig::MODELS).join("identity_tiny.onnx");
    let processor = rig
        .processor()
        .env(env::MODEL_URI, format!("s3://{}/models/a.onnx", rig.site.bucket))
        .env(env::MODEL_SHA256, sha256_of_file(&model).unwrap())
        .env(env::MODEL_CACHE_DIR, rig.directory.path().join("cache"));
    let processor = processor.start().unwrap();
    let held = processor.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    assert_eq!(held.fields["dependency"], "model:missing", "{held:?}");
    let (_, status) = ask(admin(&processor).await, "/status").await.unwrap();
    assert!(status.contains("model:missing"), "{status}");
    let (code, _) = ask(admin(&processor).await, "/ready").await.unwrap();
    assert_eq!(code, 503);
    let put = async |key: &str, file: &std::path::Path| {
        let content = std::fs::read(file).unwrap();
        rig.s3.put(&rig.site.bucket, key, content).await.unwrap();
    };
    put("models/a.onnx", &model).await;
    let held = processor.wait_for_logs("On hold", 2, STEP_TIMEOUT).await.unwrap();
    assert_eq!(held[1].fields["dependency"], "model:parameters", "{held:?}");
    put("models/a.json", &model.with_extension("json")).await;
    let loaded = processor
        .wait_for_log("Model loaded", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(loaded.fields["license"], "unknown", "{loaded:?}");
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
}

#[tokio::test]
async fn a_failed_message_is_one_dead_letter_however_often_its_worker_is_killed() {
    let rig = Rig::new(1).await;
    let processor = rig.processor().start().unwrap();
    let task = rig.submit(1).await;
    processor
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    // The stems are deleted: the upload fails permanently.
    std::fs::remove_dir_all(rig.site.stems.join(&task)).unwrap();
    for number in 0..2 {
        let mark = rig.directory.path().join(format!("mark-{number}"));
        let point = if number == 0 {
            "dead_lettered"
        } else {
            "failure_reported"
        };
        let killed = crate::rig::killed_at(rig.uploader(), point, &mark)
            .start()
            .unwrap();
        assert_eq!(killed.wait_exit(STEP_TIMEOUT).await.unwrap(), 128 + 9);
    }
    let _uploader = rig.uploader().start().unwrap();
    rig.wait_until_committed().await;
    let letters = rig
        .kafka
        .consume_all(&dead_letter_topic(&rig.site.result_topic))
        .await
        .unwrap();
    assert_eq!(letters.len(), 1);
    let deliveries = rig.webhooks(&task);
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    assert_eq!(deliveries[0].1["status"], "failed");
    // The same message published again fails again: it is a new message.
    let topic = &rig.site.result_topic;
    rig.kafka
        .publish(topic, &task, letters[0].text(), &[])
        .await
        .unwrap();
    eventually("the second failure reported", STEP_TIMEOUT, async || {
        rig.webhooks(&task).len() == 2
    })
    .await;
}
