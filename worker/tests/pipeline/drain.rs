//! The `drain` command that a pod's preStop hook runs, and the probes.

use std::net::SocketAddr;
use std::time::Duration;

use separation_contract::environment as env;
use separation_testbed::{Kafka, KafkaOptions, WorkerOptions, eventually};

use crate::rig::{Rig, STEP_TIMEOUT, WORKER, admin, ask, held_at};

fn drain(address: SocketAddr) -> WorkerOptions {
    WorkerOptions::new(WORKER, "drain").env(env::ADMIN_ADDR, address.to_string())
}

#[tokio::test]
async fn a_drain_waits_for_the_running_task_and_the_worker_exits_0() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let address = admin(&worker).await;
    let first = rig.submit(1).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let second = rig.submit(2).await;
    let drain = drain(address).start().unwrap();
    worker
        .wait_for_log("Finishing the running task before the shutdown", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(ask(address, "/live").await.unwrap().0, 200);
    assert_eq!(ask(address, "/ready").await.unwrap().0, 503);
    // It has polled more than once by now, and still waits.
    let waiting = drain.wait_exit(Duration::from_millis(1_000)).await;
    assert!(waiting.is_err() && worker.exit_code().is_none());
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(drain.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results.len(), 1, "{second} stays for another worker");
    assert_eq!(results[0].key_text(), first);
}

/// As after a preStop hook that timed out or was killed.
#[tokio::test]
async fn the_first_signal_after_a_drain_does_not_abort_the_running_task() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let task = rig.submit(1).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let _drain = drain(admin(&worker).await).start().unwrap();
    worker
        .wait_for_log("Finishing the running task before the shutdown", STEP_TIMEOUT)
        .await
        .unwrap();
    worker.sigterm().unwrap();
    worker
        .wait_for_log("Received SIGTERM while draining", STEP_TIMEOUT)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].key_text(), task);
}

#[tokio::test]
async fn a_drain_of_no_worker_or_an_idle_one_ends_immediately() {
    let rig = Rig::new(1).await;
    let no_worker = SocketAddr::from(([127, 0, 0, 1], 1));
    let without_worker = drain(no_worker).start().unwrap();
    assert_eq!(without_worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    let worker = rig.uploader().start().unwrap();
    worker
        .wait_for_log("Partitions assigned", STEP_TIMEOUT)
        .await
        .unwrap();
    let drain = drain(admin(&worker).await).start().unwrap();
    assert_eq!(drain.wait_exit(Duration::from_secs(5)).await.unwrap(), 0);
    assert_eq!(worker.wait_exit(Duration::from_secs(5)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_that_times_out_reports_the_running_task() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), "separated", &hold).start().unwrap();
    rig.submit(1).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let drain = drain(admin(&worker).await)
        .arg("--wait")
        .arg("1")
        .start()
        .unwrap();
    assert_eq!(drain.wait_exit(STEP_TIMEOUT).await.unwrap(), 1);
    let messages = drain.messages().unwrap().join("\n");
    assert!(
        messages.contains("a task was still running after 1 s"),
        "{messages}"
    );
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
}

#[tokio::test]
async fn a_worker_stays_alive_without_kafka_and_is_ready_once_it_is_reachable() {
    let rig = Rig::new(1).await;
    let kafka = Kafka::start(KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    for topic in [&rig.site.task_topic, &rig.site.result_topic] {
        kafka.create_topic(topic, 1).await.unwrap();
    }
    kafka.proxy(0).refuse();
    let worker = rig
        .processor()
        .env(env::KAFKA_BOOTSTRAP_SERVERS, kafka.bootstrap())
        .start()
        .unwrap();
    let address = admin(&worker).await;
    worker
        .wait_for_log("Processor started", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(ask(address, "/live").await.unwrap().0, 200);
    kafka.proxy(0).forward();
    worker
        .wait_for_log("Partitions assigned", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(ask(address, "/ready").await.unwrap().0, 200);
    kafka.proxy(0).refuse();
    eventually("an error logged", STEP_TIMEOUT, async || {
        let messages = worker.messages()?;
        anyhow::Ok(messages.iter().any(|message| message.contains("Kafka")))
    })
    .await;
    assert_eq!(ask(address, "/live").await.unwrap().0, 200);
    assert_eq!(worker.exit_code(), None);
}

#[tokio::test]
async fn a_worker_is_not_ready_before_its_model_is_loaded() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), "loading", &hold).start().unwrap();
    let address = admin(&worker).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    assert_eq!(ask(address, "/live").await.unwrap().0, 200);
    assert_eq!(
        ask(address, "/ready").await.unwrap(),
        (503, "starting\n".to_owned())
    );
    std::fs::remove_file(&hold).unwrap();
    eventually("readiness", STEP_TIMEOUT, async || {
        Ok::<_, anyhow::Error>(ask(address, "/ready").await?.0 == 200)
    })
    .await;
}

#[tokio::test]
async fn processed_messages_are_counted() {
    let rig = Rig::new(1).await;
    let processor = rig.processor().start().unwrap();
    let address = admin(&processor).await;
    rig.submit_many(2).await;
    rig.site
        .submit(b"no song", &rig.hooks.url("/hook"))
        .await
        .unwrap();
    rig.kafka
        .publish(&rig.site.task_topic, "key", "no task", &[])
        .await
        .unwrap();
    let expected = [
        "separation_messages_total{outcome=\"done\"} 2",
        "separation_messages_total{outcome=\"failed\"} 1",
        "separation_messages_total{outcome=\"dead_letter\"} 1",
        "separation_dead_letters_total{reason=\"malformed\"} 1",
        "separation_rebalances_total{kind=\"assigned\"} 1",
        "separation_task_seconds_count{outcome=\"done\"} 2",
        "separation_queue_wait_seconds_count 3",
        "separation_stage_seconds_count{stage=\"fetch\"} 3",
        "separation_stage_seconds_count{stage=\"separate\"} 3",
        "separation_stage_seconds_count{stage=\"store\"} 2",
        "separation_stage_seconds_count{stage=\"publish_manifest\"} 2",
        "separation_stage_seconds_count{stage=\"publish\"}",
        // Two songs of a tenth of a second.
        "separation_audio_seconds_total 0.2",
        "separation_commits_total{result=\"committed\"}",
        "separation_busy 0",
    ];
    eventually("all counted", STEP_TIMEOUT, async || {
        let (_, text) = ask(address, "/metrics").await?;
        let missing: Vec<_> = expected.iter().filter(|line| !text.contains(**line)).collect();
        anyhow::ensure!(missing.is_empty(), "{missing:?} in {text}");
        anyhow::Ok(true)
    })
    .await;
}
