//! `kill -9` between any two stages: no task is lost, and finished work is not repeated.

use separation_contract::environment::MAX_ATTEMPTS;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{Worker, WorkerOptions, eventually};

use crate::rig::{Rig, STEP_TIMEOUT, held_at, killed_at, separations};

/// Fault points of the processor in their order, and whether the manifest is published by then.
const PROCESSOR: [(&str, bool); 10] = [
    ("received", false),
    ("attempt_recorded", false),
    ("staged_in", false),
    ("separated", false),
    ("stored", false),
    ("manifest_published", true),
    ("worked", true),
    ("published", true),
    ("committed", true),
    ("cleaned", true),
];

/// Fault points of the uploader in their order.
const UPLOADER: [&str; 10] = [
    "received",
    "attempt_recorded",
    "vocals_uploaded",
    "uploaded",
    "final_manifest_written",
    "webhook_delivered",
    "worked",
    "published",
    "committed",
    "cleaned",
];

async fn until_killed(worker: &Worker) {
    let code = worker.wait_exit(STEP_TIMEOUT).await.unwrap();
    assert_eq!(code, 128 + 9, "{:?}", worker.messages());
}

#[tokio::test]
async fn a_processor_killed_between_any_two_stages_loses_nothing_and_repeats_no_finished_work() {
    for (point, published) in PROCESSOR {
        eprintln!("processor killed at {point}");
        let rig = Rig::new(1).await;
        let tasks = rig.submit_many(2).await;
        let mark = rig.directory.path().join("mark");
        let killed = killed_at(rig.processor(), point, &mark).start().unwrap();
        until_killed(&killed).await;
        let next = rig.processor().start().unwrap();
        let _uploader = rig.uploader().start().unwrap();
        rig.wait_for_webhooks(&tasks).await;
        rig.wait_until_committed().await;
        rig.check_done(&tasks).await;
        let separated = separations([&killed, &next]);
        let repeated = usize::from(point == "separated" || point == "stored");
        assert_eq!(
            separated,
            2 + repeated,
            "killed at {point}, manifest published: {published}"
        );
    }
}

#[tokio::test]
async fn an_uploader_killed_between_any_two_stages_loses_nothing_and_uses_one_webhook_id() {
    for point in UPLOADER {
        eprintln!("uploader killed at {point}");
        let rig = Rig::new(1).await;
        let tasks = rig.submit_many(2).await;
        let _processor = rig.processor().start().unwrap();
        let mark = rig.directory.path().join("mark");
        let killed = killed_at(rig.uploader(), point, &mark).start().unwrap();
        until_killed(&killed).await;
        let delivered_before: usize = tasks.iter().map(|task| rig.webhooks(task).len()).sum();
        let _next = rig.uploader().start().unwrap();
        rig.wait_for_webhooks(&tasks).await;
        rig.wait_until_committed().await;
        rig.check_done(&tasks).await;
        let deliveries: usize = tasks.iter().map(|task| rig.webhooks(task).len()).sum();
        // Only a webhook whose delivery was not yet recorded is delivered again.
        let repeated = usize::from(point == "webhook_delivered");
        assert_eq!(
            deliveries,
            2 + repeated,
            "killed at {point}, {delivered_before} delivered before"
        );
    }
}

/// A worker of a role that gives up a message after one crash.
fn once(rig: &Rig, role: &str) -> WorkerOptions {
    let options = match role {
        "processor" => rig.processor(),
        _ => rig.uploader(),
    };
    options.env(MAX_ATTEMPTS, "1")
}

#[tokio::test]
async fn a_worker_killed_between_a_commit_and_the_next_start_costs_no_message_its_only_attempt() {
    for role in ["processor", "uploader"] {
        for point in ["committed", "cleaned", "received"] {
            eprintln!("{role} with one attempt killed at {point}");
            let rig = Rig::new(1).await;
            let tasks = rig.submit_many(3).await;
            let other = match role {
                "processor" => rig.uploader().start().unwrap(),
                _ => rig.processor().start().unwrap(),
            };
            let mark = rig.directory.path().join("mark");
            let killed = killed_at(once(&rig, role), point, &mark).start().unwrap();
            until_killed(&killed).await;
            let next = once(&rig, role).start().unwrap();
            rig.wait_for_webhooks(&tasks).await;
            rig.wait_until_committed().await;
            rig.check_done(&tasks).await;
            rig.no_dead_letters().await;
            let separated = match role {
                "processor" => separations([&killed, &next]),
                _ => separations([&other]),
            };
            assert_eq!(separated, 3, "{role} killed at {point}");
        }
    }
}

#[tokio::test]
async fn a_worker_killed_while_it_drains_costs_no_message_an_attempt() {
    for (role, point) in [("processor", "separated"), ("uploader", "vocals_uploaded")] {
        let rig = Rig::new(1).await;
        let tasks = rig.submit_many(2).await;
        let other = (role == "uploader").then(|| rig.processor().start().unwrap());
        let (group, topic) = match role {
            "processor" => (&rig.site.processor_group, &rig.site.task_topic),
            _ => (&rig.site.uploader_group, &rig.site.result_topic),
        };
        for round in 1..=3 {
            eprintln!("{role} asked to stop and killed, round {round}");
            let hold = rig.hold();
            let worker = held_at(once(&rig, role), point, &hold).start().unwrap();
            worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
            worker.sigterm().unwrap();
            eventually("the attempt count undone", STEP_TIMEOUT, async || {
                let lag = rig.kafka.lag(group, topic).await?;
                let record = OffsetMetadata::parse(&lag[0].metadata);
                anyhow::Ok(record.draining && record.attempt == 0)
            })
            .await;
            worker.kill_9().await.unwrap();
        }
        let _last = once(&rig, role).start().unwrap();
        let _other = match other {
            Some(processor) => processor,
            None => rig.uploader().start().unwrap(),
        };
        rig.wait_for_webhooks(&tasks).await;
        rig.wait_until_committed().await;
        rig.check_done(&tasks).await;
        rig.no_dead_letters().await;
    }
}
