//! A worker with several partitions takes the oldest message of all of them, and none of a revoked partition.

use std::collections::BTreeSet;

use separation_contract::environment as env;
use separation_testbed::{Worker, WorkerOptions, eventually};

use crate::rig::{Rig, STEP_TIMEOUT, held_at};

const PARTITIONS: i32 = 4;

/// Log line for each message that was read from its partition's queue.
const FETCHED: &str = "Message fetched";

fn with_debug_log(options: WorkerOptions) -> WorkerOptions {
    options.env(env::LOG_LEVEL, "info,separation_worker=debug")
}

/// The tasks that a worker took, in order.
fn received(worker: &Worker) -> Vec<String> {
    let log = worker.log().unwrap();
    let received = log.iter().filter(|line| line.message == "Received task");
    let tasks = received.map(|line| line.fields["task_uuid"].as_str().unwrap().to_owned());
    tasks.collect()
}

#[tokio::test]
async fn the_oldest_message_of_all_partitions_is_taken_after_a_task() {
    let rig = Rig::new(PARTITIONS).await;
    let hold = rig.hold();
    let worker = with_debug_log(held_at(rig.processor(), "separated", &hold))
        .start()
        .unwrap();
    let mut published = vec![rig.submit_to(3, 0).await];
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    // By the numbers of the partitions, the order would be 0, 1, 2, 3.
    for partition in [2, 0, 3, 1] {
        published.push(rig.submit_to(partition, 1).await);
    }
    worker
        .wait_for_logs(FETCHED, published.len(), STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(received(&worker), published[..1], "one task runs at a time");
    std::fs::remove_file(&hold).unwrap();
    rig.tasks_committed().await;
    assert_eq!(received(&worker), published);
    rig.check_results(&published.into_iter().collect()).await;
}

#[tokio::test]
async fn a_message_that_was_fetched_from_a_revoked_partition_is_left_to_its_next_owner() {
    let rig = Rig::new(PARTITIONS).await;
    let hold = rig.hold();
    let first = with_debug_log(held_at(rig.processor(), "separated", &hold))
        .start()
        .unwrap();
    let mut tasks = BTreeSet::from([rig.submit_to(0, 0).await]);
    first.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    for partition in 0..PARTITIONS {
        tasks.insert(rig.submit_to(partition, 1).await);
    }
    first
        .wait_for_logs(FETCHED, tasks.len(), STEP_TIMEOUT)
        .await
        .unwrap();
    let second = rig.processor().start().unwrap();
    eventually("partitions revoked", STEP_TIMEOUT, async || {
        let messages = first.messages()?;
        anyhow::Ok(messages.iter().any(|message| {
            message.starts_with("Partitions revoked") || message.starts_with("Revoked partitions retained")
        }))
    })
    .await;
    std::fs::remove_file(&hold).unwrap();
    second.wait_for_log("Received task", STEP_TIMEOUT).await.unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    let mut taken = [received(&first), received(&second)].concat();
    taken.sort();
    assert_eq!(
        taken,
        tasks.into_iter().collect::<Vec<_>>(),
        "a task was taken twice"
    );
}
