//! Shutdown of a worker: the first signal lets its task finish, the second leaves it for another worker.

use std::time::{Duration, Instant};

use crate::rig::{Rig, STEP_TIMEOUT, held_at};

#[tokio::test]
async fn sigterm_finishes_the_running_task_and_logs_the_steps_in_order() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let processor = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let first = rig.submit(1).await;
    processor.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let second = rig.submit(2).await;
    processor.sigterm().unwrap();
    processor
        .wait_for_log("Finishing the running task before the shutdown", STEP_TIMEOUT)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(processor.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    let messages = processor.messages().unwrap();
    let expected = [
        "Received task",
        "Received SIGTERM, initiating graceful shutdown...",
        "Offset committed successfully",
        "Shutdown requested, stopping message consumption",
        "Final offset committed",
        "Kafka consumer closed",
        "Kafka producer closed",
        "Processor shutdown complete",
    ];
    let indices = expected.map(|line| messages.iter().position(|message| message == line));
    assert!(
        indices.iter().all(Option::is_some) && indices.is_sorted(),
        "{expected:?} in {messages:?}"
    );
    let lag = rig
        .kafka
        .total_lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    assert_eq!(lag, 1, "the second task stays queued");
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results.len(), 1);
    let _ = (first, second);
}

#[tokio::test]
async fn a_second_signal_leaves_the_task_for_another_worker() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let first = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let task = rig.submit(1).await;
    first.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    first.sigterm().unwrap();
    first
        .wait_for_log("Finishing the running task before the shutdown", STEP_TIMEOUT)
        .await
        .unwrap();
    first.sigterm().unwrap();
    assert_eq!(first.wait_exit(Duration::from_secs(10)).await.unwrap(), 130);
    std::fs::remove_file(&hold).unwrap();
    let _second = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    let tasks = [task].into();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn an_idle_worker_exits_immediately() {
    let rig = Rig::new(1).await;
    let processor = rig.processor().start().unwrap();
    processor
        .wait_for_log("Partitions assigned", STEP_TIMEOUT)
        .await
        .unwrap();
    let begin = Instant::now();
    processor.sigterm().unwrap();
    assert_eq!(processor.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// Exiting while ONNX Runtime loads a model once crashed one process in fifteen.
#[tokio::test]
async fn a_worker_that_gets_sigterm_while_its_model_loads_exits_0() {
    let rig = Rig::new(1).await;
    for _ in 0..30 {
        let processor = rig.processor().start().unwrap();
        processor
            .wait_for_log("Admin endpoint listens", STEP_TIMEOUT)
            .await
            .unwrap();
        processor.sigterm().unwrap();
        assert_eq!(processor.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_worker_whose_parent_has_exited_exits_0() {
    let rig = Rig::new(1).await;
    // Process 1 is not the parent of a test's process.
    let processor = rig.processor().env("PARENT_PROCESS", "1").start().unwrap();
    processor
        .wait_for_log("The parent process has exited", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(processor.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
}
