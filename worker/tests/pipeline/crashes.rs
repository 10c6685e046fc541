//! `kill -9` between any two stages: nothing is lost, and nobody does finished work again.

use separation_contract::environment::MAX_ATTEMPTS;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{Worker, WorkerOptions, eventually};

use crate::rig::{PATIENCE, Rig, ends_at, held_at, separations};

/// Places of the processor, in their order, and whether the stems are shown by then.
const PROCESSOR: [(&str, bool); 10] = [
    ("received", false),
    ("attempt_noted", false),
    ("staged_in", false),
    ("separated", false),
    ("stored", false),
    ("shown", true),
    ("worked", true),
    ("published", true),
    ("committed", true),
    ("cleaned", true),
];

/// Places of the uploader, in their order.
const UPLOADER: [&str; 10] = [
    "received",
    "attempt_noted",
    "vocals_uploaded",
    "uploaded",
    "concluded",
    "told",
    "worked",
    "published",
    "committed",
    "cleaned",
];

async fn until_killed(worker: &Worker) {
    let code = worker.wait_exit(PATIENCE).await.unwrap();
    assert_eq!(code, 128 + 9, "{:?}", worker.messages());
}

#[tokio::test]
async fn a_processor_killed_between_any_two_stages_loses_nothing_and_repeats_no_finished_work() {
    for (place, shown) in PROCESSOR {
        eprintln!("processor killed at {place}");
        let rig = Rig::new(1).await;
        let tasks = rig.submit_many(2).await;
        let mark = rig.folder.path().join("mark");
        let killed = ends_at(rig.processor(), place, &mark).start().unwrap();
        until_killed(&killed).await;
        let next = rig.processor().start().unwrap();
        let _uploader = rig.uploader().start().unwrap();
        rig.all_told(&tasks).await;
        rig.run_dry().await;
        rig.check_done(&tasks).await;
        let separated = separations([&killed, &next]);
        let repeated = usize::from(place == "separated" || place == "stored");
        assert_eq!(separated, 2 + repeated, "killed at {place}, shown: {shown}");
    }
}

#[tokio::test]
async fn an_uploader_killed_between_any_two_stages_loses_nothing_and_tells_with_one_id() {
    for place in UPLOADER {
        eprintln!("uploader killed at {place}");
        let rig = Rig::new(1).await;
        let tasks = rig.submit_many(2).await;
        let _processor = rig.processor().start().unwrap();
        let mark = rig.folder.path().join("mark");
        let killed = ends_at(rig.uploader(), place, &mark).start().unwrap();
        until_killed(&killed).await;
        let rung_before: usize = tasks.iter().map(|task| rig.webhooks(task).len()).sum();
        let _next = rig.uploader().start().unwrap();
        rig.all_told(&tasks).await;
        rig.run_dry().await;
        rig.check_done(&tasks).await;
        let rung: usize = tasks.iter().map(|task| rig.webhooks(task).len()).sum();
        // Only a webhook that was rung and not yet written down rings again.
        let repeated = usize::from(place == "told");
        assert_eq!(rung, 2 + repeated, "killed at {place}, {rung_before} rung before");
    }
}

/// A worker of a role that gives a message up after one crash.
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
        for place in ["committed", "cleaned", "received"] {
            eprintln!("{role} with one attempt killed at {place}");
            let rig = Rig::new(1).await;
            let tasks = rig.submit_many(3).await;
            let other = match role {
                "processor" => rig.uploader().start().unwrap(),
                _ => rig.processor().start().unwrap(),
            };
            let mark = rig.folder.path().join("mark");
            let killed = ends_at(once(&rig, role), place, &mark).start().unwrap();
            until_killed(&killed).await;
            let next = once(&rig, role).start().unwrap();
            rig.all_told(&tasks).await;
            rig.run_dry().await;
            rig.check_done(&tasks).await;
            rig.no_dead_letters().await;
            let separated = match role {
                "processor" => separations([&killed, &next]),
                _ => separations([&other]),
            };
            assert_eq!(separated, 3, "{role} killed at {place}");
        }
    }
}

#[tokio::test]
async fn a_worker_killed_while_it_drains_costs_no_message_an_attempt() {
    for (role, place) in [("processor", "separated"), ("uploader", "vocals_uploaded")] {
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
            let worker = held_at(once(&rig, role), place, &hold).start().unwrap();
            worker.wait_for_log("Held", PATIENCE).await.unwrap();
            worker.sigterm().unwrap();
            eventually("the attempt taken back", PATIENCE, async || {
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
        rig.all_told(&tasks).await;
        rig.run_dry().await;
        rig.check_done(&tasks).await;
        rig.no_dead_letters().await;
    }
}
