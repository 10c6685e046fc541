//! Brokers that stop, leaders that change, topics that grow and come anew: no task is lost, no worker ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use separation_testbed::{Kafka, KafkaOptions, Replacement, Worker, eventually, task_message, tiny_song};

use crate::rig::{PATIENCE, Rig, held_at, separations};

/// Longer than a session of 6 s, so that the group forgets its members.
const AWAY: Duration = Duration::from_secs(60);

/// How long a step with transactions may take.
const TRANSACTION: Duration = Duration::from_secs(20);

/// Brokers of a test's own, which may be stopped.
async fn brokers(count: u16) -> &'static Kafka {
    let options = KafkaOptions {
        brokers: count,
        ..KafkaOptions::default()
    };
    Box::leak(Box::new(Kafka::start(options).await.unwrap()))
}

/// Whether a worker lives through so long a time.
async fn lives_on(worker: &Worker, time: Duration) {
    assert!(worker.wait_exit(time).await.is_err(), "the worker ended");
}

/// A broker is away while a worker is at `place`, and comes back before or after the worker goes on.
async fn broker_away_at(place: &str, goes_on_while_away: bool) {
    let rig = Rig::on(brokers(1).await, 1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), place, &hold).start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit(1).await]);
    worker.wait_for_log("Held", PATIENCE).await.unwrap();
    rig.kafka.stop_broker(0).await.unwrap();
    if goes_on_while_away {
        std::fs::remove_file(&hold).unwrap();
    }
    lives_on(&worker, AWAY).await;
    rig.kafka.start_broker(0).await.unwrap();
    if !goes_on_while_away {
        std::fs::remove_file(&hold).unwrap();
    }
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    tasks.insert(rig.submit(2).await);
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    let said = worker.log().unwrap();
    let warnings = said.iter().filter(|line| line.level == "WARN").count();
    assert!(warnings < 60, "{warnings} warnings");
    rig.kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_broker_away_in_the_middle_of_a_task_costs_no_task() {
    broker_away_at("separated", false).await;
}

#[tokio::test]
async fn a_broker_away_at_the_commit_costs_no_task_and_no_second_result() {
    broker_away_at("published", true).await;
}

#[tokio::test]
async fn a_worker_that_starts_without_brokers_serves_when_they_come() {
    let rig = Rig::on(brokers(1).await, 1).await;
    rig.kafka.stop_broker(0).await.unwrap();
    let worker = rig.processor().start().unwrap();
    lives_on(&worker, Duration::from_secs(8)).await;
    rig.kafka.start_broker(0).await.unwrap();
    let tasks = BTreeSet::from([rig.submit(1).await]);
    worker
        .wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    rig.check_results(&tasks).await;
    rig.kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_changes_in_the_middle_of_a_task_costs_nothing() {
    let rig = Rig::on(brokers(3).await, 1).await;
    let hold = rig.hold();
    let worker = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit(1).await]);
    worker.wait_for_log("Held", PATIENCE).await.unwrap();
    let topic = &rig.site.task_topic;
    let old = rig.kafka.leader(topic, 0).await.unwrap().unwrap();
    rig.kafka.kill_broker(old).await.unwrap();
    eventually("another leader", PATIENCE, async || {
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
async fn messages_of_a_partition_that_was_added_are_served() {
    let rig = Rig::new(1).await;
    let worker = rig.processor().start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit_to(0, 1).await]);
    worker
        .wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    rig.kafka.add_partitions(&rig.site.task_topic, 2).await.unwrap();
    tasks.insert(rig.submit_to(1, 2).await);
    tasks.insert(rig.submit_to(0, 3).await);
    worker
        .wait_for_logs("Offset committed successfully", 3, PATIENCE)
        .await
        .unwrap();
    rig.check_results(&tasks).await;
}

/// A topic goes and comes again, with `after` messages where it had `before`.
async fn topic_comes_anew(before: u64, after: u64) {
    let rig = Rig::new(1).await;
    let worker = rig.processor().start().unwrap();
    let mut tasks = rig.submit_many(before).await;
    worker
        .wait_for_logs("Offset committed successfully", tasks.len(), PATIENCE)
        .await
        .unwrap();
    rig.kafka.delete_topic(&rig.site.task_topic).await.unwrap();
    rig.kafka.create_topic(&rig.site.task_topic, 1).await.unwrap();
    tasks.extend(rig.submit_many(after).await);
    worker
        .wait_for_logs("Offset committed successfully", tasks.len(), PATIENCE)
        .await
        .unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
}

#[tokio::test]
async fn a_topic_that_comes_anew_is_served_from_its_beginning() {
    topic_comes_anew(3, 2).await;
}

#[tokio::test]
async fn a_topic_that_comes_anew_and_has_more_messages_is_served_from_its_beginning() {
    topic_comes_anew(1, 3).await;
}

/// A broker that has just become a group's coordinator may answer for a moment that the group never committed.
#[tokio::test]
async fn one_false_answer_that_the_group_never_committed_rewinds_nothing() {
    let options = KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    };
    let kafka: &'static Kafka = Box::leak(Box::new(Kafka::start(options).await.unwrap()));
    let rig = Rig::on(kafka, 1).await;
    let worker = rig.processor().start().unwrap();
    let mut tasks = rig.submit_many(3).await;
    worker
        .wait_for_logs("Offset committed successfully", 3, PATIENCE)
        .await
        .unwrap();
    // A commit of its own tells the worker for a moment what is committed.
    lives_on(&worker, Duration::from_millis(300)).await;
    // The committed offset and the unknown epoch of its leader, as only answers about committed offsets have them.
    let answer = |offset: i64| [&offset.to_be_bytes()[..], &(-1_i32).to_be_bytes()].concat();
    let proxy = rig.kafka.proxy(0);
    proxy.replace_once(Replacement {
        after: rig.site.task_topic.clone().into_bytes(),
        from: answer(3),
        to: answer(-1),
    });
    tasks.insert(rig.submit(4).await);
    worker
        .wait_for_logs("Offset committed successfully", 4, PATIENCE)
        .await
        .unwrap();
    assert!(
        proxy.has_replaced(),
        "the worker was told that nothing is committed"
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

    /// Publishes a task, to be ended by [`Self::commit`] or [`Self::abort`].
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
async fn the_markers_of_transactions_count_as_read_and_no_message_does() {
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
    // An open transaction holds back what follows it, which must not be stepped over.
    tasks.insert(transactions.begin(3));
    transactions.producer.flush(TRANSACTION).unwrap();
    tasks.insert(rig.submit_to(0, 4).await);
    lives_on(&worker, Duration::from_secs(3)).await;
    transactions.commit().await;
    worker
        .wait_for_logs("Offset committed successfully", 3, PATIENCE)
        .await
        .unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations([&worker]), 3);
}
