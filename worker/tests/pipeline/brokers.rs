//! Brokers that stop, leaders that change, topics that grow or are recreated: no task is lost, no worker exits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use separation_testbed::{Kafka, KafkaOptions, Replacement, Worker, eventually, task_message, tiny_song};

use crate::rig::{Rig, STEP_TIMEOUT, held_at, separations};

/// Longer than the session timeout of 6 s, so that the group removes its members.
const OUTAGE: Duration = Duration::from_secs(60);

/// Timeout of a step with transactions.
const TRANSACTION: Duration = Duration::from_secs(20);

/// Brokers for one test only, which it may stop.
async fn brokers(count: u16) -> &'static Kafka {
    let options = KafkaOptions {
        brokers: count,
        ..KafkaOptions::default()
    };
    Box::leak(Box::new(Kafka::start(options).await.unwrap()))
}

/// Checks that a worker does not exit within `time`.
async fn check_still_running(worker: &Worker, time: Duration) {
    assert!(worker.wait_exit(time).await.is_err(), "the worker exited");
}

/// The broker is unreachable while a worker is held at `point`, and is back before or after the worker continues.
async fn broker_outage_at(point: &str, continues_during_outage: bool) {
    let rig = Rig::on(brokers(1).await, 1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), point, &hold).start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit(1).await]);
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    rig.kafka.stop_broker(0).await.unwrap();
    if continues_during_outage {
        std::fs::remove_file(&hold).unwrap();
    }
    check_still_running(&worker, OUTAGE).await;
    rig.kafka.start_broker(0).await.unwrap();
    if !continues_during_outage {
        std::fs::remove_file(&hold).unwrap();
    }
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    tasks.insert(rig.submit(2).await);
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    let log = worker.log().unwrap();
    let warnings = log.iter().filter(|line| line.level == "WARN").count();
    assert!(warnings < 60, "{warnings} warnings");
    rig.kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_broker_outage_during_a_task_loses_no_task() {
    broker_outage_at("separated", false).await;
}

#[tokio::test]
async fn a_broker_outage_at_the_commit_loses_no_task_and_publishes_no_second_result() {
    broker_outage_at("published", true).await;
}

#[tokio::test]
async fn a_worker_that_starts_without_brokers_processes_tasks_once_they_are_reachable() {
    let rig = Rig::on(brokers(1).await, 1).await;
    rig.kafka.stop_broker(0).await.unwrap();
    let worker = rig.processor().start().unwrap();
    check_still_running(&worker, Duration::from_secs(8)).await;
    rig.kafka.start_broker(0).await.unwrap();
    let tasks = BTreeSet::from([rig.submit(1).await]);
    worker
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    rig.check_results(&tasks).await;
    rig.kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_leader_change_during_a_task_loses_nothing() {
    let rig = Rig::on(brokers(3).await, 1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit(1).await]);
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let topic = &rig.site.task_topic;
    let old = rig.kafka.leader(topic, 0).await.unwrap().unwrap();
    rig.kafka.kill_broker(old).await.unwrap();
    eventually("another leader", STEP_TIMEOUT, async || {
        let leader = rig.kafka.leader(topic, 0).await?;
        anyhow::Ok(leader.is_some_and(|leader| leader != old))
    })
    .await;
    std::fs::remove_file(&hold).unwrap();
    rig.tasks_committed().await;
    tasks.insert(rig.submit(2).await);
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations([&worker]), 2);
    for left in (0..3).filter(|&broker| broker != old) {
        rig.kafka.kill_broker(left).await.unwrap();
    }
}

#[tokio::test]
async fn messages_of_an_added_partition_are_processed() {
    let rig = Rig::new(1).await;
    let worker = rig.processor().start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit_to(0, 1).await]);
    worker
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    rig.kafka.add_partitions(&rig.site.task_topic, 2).await.unwrap();
    tasks.insert(rig.submit_to(1, 2).await);
    tasks.insert(rig.submit_to(0, 3).await);
    worker
        .wait_for_logs("Offset committed successfully", 3, STEP_TIMEOUT)
        .await
        .unwrap();
    rig.check_results(&tasks).await;
}

/// A topic is deleted and recreated, with `after` messages instead of `before`.
async fn topic_is_recreated(before: u64, after: u64) {
    let rig = Rig::new(1).await;
    let worker = rig.processor().start().unwrap();
    let mut tasks = rig.submit_many(before).await;
    worker
        .wait_for_logs("Offset committed successfully", tasks.len(), STEP_TIMEOUT)
        .await
        .unwrap();
    rig.kafka.delete_topic(&rig.site.task_topic).await.unwrap();
    rig.kafka.create_topic(&rig.site.task_topic, 1).await.unwrap();
    tasks.extend(rig.submit_many(after).await);
    worker
        .wait_for_logs("Offset committed successfully", tasks.len(), STEP_TIMEOUT)
        .await
        .unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
}

#[tokio::test]
async fn a_recreated_topic_is_read_from_its_beginning() {
    topic_is_recreated(3, 2).await;
}

#[tokio::test]
async fn a_recreated_topic_with_more_messages_is_read_from_its_beginning() {
    topic_is_recreated(1, 3).await;
}

/// A broker that has just become a group's coordinator may respond for a moment that the group never committed.
#[tokio::test]
async fn one_wrong_response_without_a_committed_offset_rewinds_nothing() {
    let options = KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    };
    let kafka: &'static Kafka = Box::leak(Box::new(Kafka::start(options).await.unwrap()));
    let rig = Rig::on(kafka, 1).await;
    let worker = rig.processor().start().unwrap();
    let mut tasks = rig.submit_many(3).await;
    worker
        .wait_for_logs("Offset committed successfully", 3, STEP_TIMEOUT)
        .await
        .unwrap();
    // For 100 ms after its own commit, the worker requests no committed offset.
    check_still_running(&worker, Duration::from_millis(300)).await;
    // The committed offset and the unknown leader epoch, a sequence of bytes that only OffsetFetch responses have.
    let answer = |offset: i64| [&offset.to_be_bytes()[..], &(-1_i32).to_be_bytes()].concat();
    let proxy = rig.kafka.proxy(0);
    proxy.replace_once(Replacement {
        after: rig.site.task_topic.clone().into_bytes(),
        from: answer(3),
        to: answer(-1),
    });
    tasks.insert(rig.submit(4).await);
    worker
        .wait_for_logs("Offset committed successfully", 4, STEP_TIMEOUT)
        .await
        .unwrap();
    assert!(
        proxy.has_replaced(),
        "the worker received the response without a committed offset"
    );
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    let read = worker.messages().unwrap();
    let received = read.iter().filter(|message| *message == "Received task").count();
    assert_eq!(received, 4, "{read:?}");
    rig.kafka.kill_broker(0).await.unwrap();
}

/// A producer of tasks that uses transactions.
struct Transactions<'r> {
    rig: &'r Rig,
    producer: Arc<BaseProducer>,
}

impl<'r> Transactions<'r> {
    async fn new(rig: &'r Rig) -> Self {
        let producer: Arc<BaseProducer> = Arc::new(
            ClientConfig::new()
                .set("bootstrap.servers", rig.kafka.bootstrap())
                .set("transactional.id", &rig.site.tag)
                .create()
                .unwrap(),
        );
        let starting = Arc::clone(&producer);
        blocking(move || starting.init_transactions(TRANSACTION).unwrap()).await;
        Self { rig, producer }
    }

    /// Publishes a task in a transaction, which [`Self::commit`] or [`Self::abort`] ends.
    fn begin(&self, number: u64) -> String {
        let (task, path) = self.rig.site.put_song(&tiny_song(number)).unwrap();
        let message = task_message(&task, &path.display().to_string(), &self.rig.hooks.url("/hook"));
        self.producer.begin_transaction().unwrap();
        let (topic, value) = (&self.rig.site.task_topic, message.to_string());
        self.producer
            .send(BaseRecord::to(topic).partition(0).key(&task).payload(&value))
            .unwrap();
        task
    }

    async fn commit(&self) {
        let producer = Arc::clone(&self.producer);
        blocking(move || producer.commit_transaction(TRANSACTION).unwrap()).await;
    }

    async fn abort(&self) {
        let producer = Arc::clone(&self.producer);
        blocking(move || {
            producer.flush(TRANSACTION).unwrap();
            producer.abort_transaction(TRANSACTION).unwrap();
        })
        .await;
    }
}

async fn blocking(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[tokio::test]
async fn transaction_markers_are_committed_and_no_message_is_skipped() {
    let rig = Rig::new(1).await;
    let worker = rig.processor().start().unwrap();
    let transactions = Transactions::new(&rig).await;
    let mut tasks = BTreeSet::from([transactions.begin(1)]);
    transactions.commit().await;
    rig.tasks_committed().await;
    // An aborted task and two markers at the end, then messages after them.
    transactions.begin(2);
    transactions.abort().await;
    rig.tasks_committed().await;
    // An open transaction delays the messages after it, which must not be skipped.
    tasks.insert(transactions.begin(3));
    transactions.producer.flush(TRANSACTION).unwrap();
    tasks.insert(rig.submit_to(0, 4).await);
    check_still_running(&worker, Duration::from_secs(3)).await;
    transactions.commit().await;
    worker
        .wait_for_logs("Offset committed successfully", 3, STEP_TIMEOUT)
        .await
        .unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations([&worker]), 3);
}
