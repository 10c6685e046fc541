//! Our own systems refuse us: every task waits, none fails, and work goes on by itself after the repair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use separation_contract::environment as env;
use separation_contract::names::dead_letter_topic;
use separation_testbed::{Worker, eventually, tiny_song};

use crate::front::{Fault, Front};
use crate::rig::{PATIENCE, Rig, admin, ask, print_resumed, refusal_duration};

/// Within which time after a repair the first task is done.
const RESUMES_WITHIN: Duration = Duration::from_secs(30);

/// Tasks that are told of when the first refusal begins; the second begins after twice as many.
const BEFORE: usize = 25;

/// What refuses, how it is made to, and how that ends.
type Refusal<'t> = (&'static str, &'t dyn Fn(), &'t dyn Fn());

/// Webhooks so far.
fn told(rig: &Rig) -> usize {
    rig.hooks.requests_to("/hook").len()
}

async fn until_told(rig: &Rig, count: usize) {
    eventually("tasks done", PATIENCE, async || told(rig) >= count).await;
}

/// What the workers are held by within the refusal, and that nothing ends meanwhile.
async fn stands(rig: &Rig, workers: [&Worker; 2], before: [usize; 2], begun: Instant) {
    for (worker, before) in workers.iter().zip(before) {
        worker
            .wait_for_logs("On hold", before + 1, PATIENCE)
            .await
            .unwrap();
    }
    let done = told(rig);
    tokio::time::sleep(refusal_duration().saturating_sub(begun.elapsed())).await;
    assert_eq!(told(rig), done, "nothing ends while the store refuses");
}

fn holds(worker: &Worker) -> usize {
    let messages = worker.messages().unwrap();
    messages
        .iter()
        .filter(|message| message.starts_with("On hold"))
        .count()
}

#[tokio::test]
async fn refusals_of_the_store_in_the_middle_of_100_tasks_fail_none() {
    let rig = Rig::new(2).await;
    let wrong_secret = Arc::new(AtomicBool::new(false));
    let is_wrong = Arc::clone(&wrong_secret);
    let front = Front::start(rig.s3.address(), move |_| {
        is_wrong.load(Ordering::Relaxed).then_some(Fault::WrongSecret)
    })
    .await;
    let mut tasks = std::collections::BTreeSet::new();
    for number in 0..100 {
        tasks.insert(rig.submit_object(tiny_song(number)).await);
    }
    let start = |options: separation_testbed::WorkerOptions| {
        rig.staged_in_s3(options)
            .env(env::S3_ENDPOINT_URL, front.endpoint())
            // A tenth of the refusals.
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
            &|| rig.s3.take_bucket(&rig.site.bucket).unwrap(),
            &|| rig.s3.return_bucket(&rig.site.bucket).unwrap(),
        ),
    ];
    for (number, (refusal, refuse, repair)) in refusals.into_iter().enumerate() {
        until_told(&rig, BEFORE * (number + 1)).await;
        let workers = [&processor, &uploader];
        let before = workers.map(holds);
        let begun = Instant::now();
        refuse();
        stands(&rig, workers, before, begun).await;
        repair();
        let repaired = Instant::now();
        let done = told(&rig);
        until_told(&rig, done + 1).await;
        let resumed = repaired.elapsed();
        print_resumed(refusal, resumed);
        assert!(resumed < RESUMES_WITHIN, "{resumed:?}");
    }
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    rig.check_results(&tasks).await;
    rig.no_dead_letters().await;
    assert_eq!((processor.exit_code(), uploader.exit_code()), (None, None));
}

/// Every request to the store is refused while the flag is set.
async fn refusing(rig: &Rig) -> (Front, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&refuses);
    let front = Front::start(rig.s3.address(), move |_| {
        still.load(Ordering::Relaxed).then_some(Fault::WrongSecret)
    })
    .await;
    (front, refuses)
}

#[tokio::test]
async fn a_worker_on_hold_reports_it_and_leaves_its_message_when_it_is_asked_to_stop() {
    let rig = Rig::new(1).await;
    let (front, refuses) = refusing(&rig).await;
    let tasks = rig.submit_many(1).await;
    let processor = rig.processor().start().unwrap();
    let uploader = || {
        let uploader = rig.uploader().env(env::S3_ENDPOINT_URL, front.endpoint());
        uploader.env(env::MAX_ATTEMPTS, "1").start().unwrap()
    };
    let first = uploader();
    first.wait_for_log("On hold", PATIENCE).await.unwrap();
    let address = admin(&first).await;
    let (status, ready) = ask(address, "/ready").await.unwrap();
    assert_eq!(status, 200, "another worker would be refused as well");
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
    eventually("the hold beside the offset", PATIENCE, async || {
        let record = record().await?;
        anyhow::Ok(record.contains("held=s3:SignatureDoesNotMatch@") && !record.contains("attempt="))
    })
    .await;
    let asked = Instant::now();
    first.sigterm().unwrap();
    assert_eq!(first.wait_exit(PATIENCE).await.unwrap(), 0);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(
        !record().await.unwrap().contains("held="),
        "nobody is held any more"
    );
    // With one attempt allowed, one that counted would be the last.
    let second = uploader();
    second.wait_for_log("On hold", PATIENCE).await.unwrap();
    refuses.store(false, Ordering::Relaxed);
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    assert_eq!((processor.exit_code(), second.exit_code()), (None, None));
}

#[tokio::test]
async fn a_processor_without_its_model_waits_for_it() {
    let rig = Rig::new(1).await;
    let models = rig.folder.subfolder("models").unwrap();
    let tasks = rig.submit_many(1).await;
    let processor = rig.processor().env(env::MODEL_FILE_DIR, models.to_str().unwrap());
    let processor = processor.start().unwrap();
    let held = processor.wait_for_log("On hold", PATIENCE).await.unwrap();
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
async fn a_message_that_is_given_up_is_one_dead_letter_however_often_its_worker_is_killed() {
    let rig = Rig::new(1).await;
    let processor = rig.processor().start().unwrap();
    let task = rig.submit(1).await;
    processor
        .wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    // The stems are gone: the upload fails for good.
    std::fs::remove_dir_all(rig.site.stems.join(&task)).unwrap();
    for number in 0..2 {
        let mark = rig.folder.path().join(format!("mark-{number}"));
        let place = if number == 0 { "dead_lettered" } else { "refused" };
        let killed = crate::rig::ends_at(rig.uploader(), place, &mark).start().unwrap();
        assert_eq!(killed.wait_exit(PATIENCE).await.unwrap(), 128 + 9);
    }
    let _uploader = rig.uploader().start().unwrap();
    rig.run_dry().await;
    let letters = rig
        .kafka
        .consume_all(&dead_letter_topic(&rig.site.result_topic))
        .await
        .unwrap();
    assert_eq!(letters.len(), 1);
    let rung = rig.webhooks(&task);
    assert_eq!(rung.len(), 1, "{rung:?}");
    assert_eq!(rung[0].1["status"], "failed");
    // Published again, it fails again, which is another message.
    let topic = &rig.site.result_topic;
    rig.kafka
        .publish(topic, &task, letters[0].text(), &[])
        .await
        .unwrap();
    eventually("the second failure told", PATIENCE, async || {
        rig.webhooks(&task).len() == 2
    })
    .await;
}
