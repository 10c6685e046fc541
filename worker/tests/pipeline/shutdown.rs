//! Ending a worker: the first signal lets its task finish, the second leaves it for another.

use std::time::{Duration, Instant};

use crate::rig::{PATIENCE, Rig, held_at};

#[tokio::test]
async fn sigterm_lets_the_running_task_finish_and_says_so_in_order() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let processor = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let first = rig.submit(1).await;
    processor.wait_for_log("Held", PATIENCE).await.unwrap();
    let second = rig.submit(2).await;
    processor.sigterm().unwrap();
    processor
        .wait_for_log("Finishing the running task before the shutdown", PATIENCE)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(processor.wait_exit(PATIENCE).await.unwrap(), 0);
    let messages = processor.messages().unwrap();
    let words = [
        "Received task",
        "Received SIGTERM, initiating graceful shutdown...",
        "Offset committed successfully",
        "Shutdown requested, stopping message consumption",
        "Final offset committed",
        "Kafka consumer closed",
        "Kafka producer closed",
        "Processor shutdown complete",
    ];
    let places = words.map(|word| messages.iter().position(|message| message == word));
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{words:?} in {messages:?}"
    );
    let lag = rig
        .kafka
        .total_lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    assert_eq!(lag, 1, "the second task waits");
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
    first.wait_for_log("Held", PATIENCE).await.unwrap();
    first.sigterm().unwrap();
    first
        .wait_for_log("Finishing the running task before the shutdown", PATIENCE)
        .await
        .unwrap();
    first.sigterm().unwrap();
    assert_eq!(first.wait_exit(Duration::from_secs(10)).await.unwrap(), 130);
    std::fs::remove_file(&hold).unwrap();
    let _second = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    let tasks = [task].into();
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn an_idle_worker_is_gone_at_once() {
    let rig = Rig::new(1).await;
    let processor = rig.processor().start().unwrap();
    processor
        .wait_for_log("Partitions assigned", PATIENCE)
        .await
        .unwrap();
    let asked = Instant::now();
    processor.sigterm().unwrap();
    assert_eq!(processor.wait_exit(PATIENCE).await.unwrap(), 0);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// Ending a process while ONNX Runtime loads a model crashed it in one of fifteen times.
#[tokio::test]
async fn a_worker_that_is_told_to_end_while_its_model_loads_ends_in_order() {
    let rig = Rig::new(1).await;
    for _ in 0..30 {
        let processor = rig.processor().start().unwrap();
        processor
            .wait_for_log("Admin endpoint listens", PATIENCE)
            .await
            .unwrap();
        processor.sigterm().unwrap();
        assert_eq!(processor.wait_exit(PATIENCE).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_worker_whose_parent_is_gone_ends_in_order() {
    let rig = Rig::new(1).await;
    // The first process of the machine is no parent of a test's.
    let processor = rig.processor().env("PARENT_PROCESS", "1").start().unwrap();
    processor
        .wait_for_log("The process that started this one is gone", PATIENCE)
        .await
        .unwrap();
    assert_eq!(processor.wait_exit(PATIENCE).await.unwrap(), 0);
}
