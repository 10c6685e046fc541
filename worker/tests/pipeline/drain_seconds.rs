//! Shutdown of a worker whose task takes longer than `DRAIN_SECONDS`: it leaves the task to another worker.

use std::path::Path;
use std::time::Duration;

use separation_contract::environment as env;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{Worker, eventually};

use crate::rig::{Rig, STEP_TIMEOUT, held_at, separations};
use crate::v1::{progress_reaches, submit_hours};

const RELEASED: &str = "Stopping before the task is done";

/// Two heartbeats of 3 s, and 5 s.
const STARTED_ELSEWHERE: Duration = Duration::from_secs(11);

/// How long a worker may take to release its task or to exit after that: 2 s, and more on a busy machine.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// A processor that drains for this time, and gives up a message after one crash.
fn held(rig: &Rig, point: &str, hold: &Path, drain_seconds: u32) -> Worker {
    held_at(rig.processor(), point, hold)
        .env(env::DRAIN_SECONDS, drain_seconds.to_string())
        .env(env::MAX_ATTEMPTS, "1")
        .env(env::KAFKA_SESSION_TIMEOUT_MS, "10000")
        .env(env::KAFKA_HEARTBEAT_INTERVAL_MS, "3000")
        .start()
        .unwrap()
}

async fn is_stable_with(rig: &Rig, members: usize) {
    eventually("a stable group", STEP_TIMEOUT, async || {
        let group = rig.kafka.group(&rig.site.processor_group).await?;
        anyhow::Ok(group.state == "Stable" && group.members.len() == members)
    })
    .await;
}

#[tokio::test]
async fn an_idle_worker_starts_a_released_task_within_two_heartbeats_and_5_s_and_no_attempt_counts() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let mut worker = held(&rig, "staged_in", &hold, 1);
    let task = rig.submit(1).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    for _ in 0..3 {
        let idle = held(&rig, "staged_in", &hold, 1);
        is_stable_with(&rig, 2).await;
        worker.sigterm().unwrap();
        idle.wait_for_log("Received task", STARTED_ELSEWHERE)
            .await
            .unwrap();
        assert_eq!(worker.wait_exit(EXIT_LIMIT).await.unwrap(), 0);
        idle.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
        worker = idle;
    }
    std::fs::remove_file(&hold).unwrap();
    rig.tasks_committed().await;
    rig.check_results(&[task].into()).await;
    rig.no_dead_letters().await;
}

#[tokio::test]
async fn a_worker_whose_model_runs_stops_it_and_exits_0_before_the_drain_ends() {
    let rig = Rig::new(1).await;
    submit_hours(&rig).await;
    let processor = rig.processor().env(env::PROGRESS_SECONDS, "1");
    let processor = processor.env(env::DRAIN_SECONDS, "30").start().unwrap();
    progress_reaches(&rig, 1).await;
    processor.sigterm().unwrap();
    processor.wait_for_log(RELEASED, EXIT_LIMIT).await.unwrap();
    assert_eq!(processor.wait_exit(EXIT_LIMIT).await.unwrap(), 0);
    let lag = rig.kafka.lag(&rig.site.processor_group, &rig.site.task_topic);
    let lag = lag.await.unwrap();
    let record = OffsetMetadata::parse(&lag[0].metadata);
    assert_eq!((lag[0].lag, record.attempt, record.draining), (1, 0, true));
    assert_eq!((record.start, record.percent), (None, None), "nothing runs");
}

#[tokio::test]
async fn a_task_with_a_short_rest_is_finished() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let worker = held(&rig, "separated", &hold, 60);
    let task = rig.submit(1).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    worker.sigterm().unwrap();
    worker
        .wait_for_log("Finishing the running task before the shutdown", STEP_TIMEOUT)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    rig.check_results(&[task].into()).await;
}

#[tokio::test]
async fn a_task_that_takes_longer_than_expected_is_released_when_the_drain_ends() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let first = held(&rig, "separated", &hold, 1);
    let task = rig.submit(1).await;
    first.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    first.sigterm().unwrap();
    assert_eq!(first.wait_exit(EXIT_LIMIT).await.unwrap(), 0);
    std::fs::remove_file(&hold).unwrap();
    let second = held(&rig, "separated", &hold, 1);
    rig.tasks_committed().await;
    rig.check_results(&[task].into()).await;
    assert_eq!(separations([&first, &second]), 2);
}

#[tokio::test]
async fn a_task_whose_publishing_began_is_finished_after_the_drain_ended() {
    for point in ["manifest_published", "published"] {
        let rig = Rig::new(1).await;
        let hold = rig.hold();
        let worker = held(&rig, point, &hold, 1);
        let task = rig.submit(1).await;
        worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
        worker.sigterm().unwrap();
        let running = worker.wait_exit(Duration::from_secs(3)).await;
        assert!(running.is_err(), "released at {point}");
        std::fs::remove_file(&hold).unwrap();
        assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
        rig.tasks_committed().await;
        rig.check_results(&[task].into()).await;
    }
}
