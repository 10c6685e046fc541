//! `kill -9` between any two stages: nothing is lost, and nobody does finished work again.

use separation_testbed::Worker;

use crate::rig::{PATIENCE, Rig, ends_at};

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

/// How often a worker came to separate a song.
fn separations(workers: &[&Worker]) -> usize {
    let messages = workers.iter().flat_map(|worker| worker.messages().unwrap());
    messages.filter(|message| message == "Separated").count()
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
        let separated = separations(&[&killed, &next]);
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
