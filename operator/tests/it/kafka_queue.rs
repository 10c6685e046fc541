//! Times of arrival of queued messages, and what workers report about their tasks.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use separation_contract::kafka::OffsetReset;
use separation_kafka::TopicIdentity;
use separation_operator::decide::{Moment, PartitionQueue, Queue};
use separation_operator::observe::{Adoption, FinishedTask, Query, QueryResult};
use separation_testbed::Kafka;

use crate::reading::{DEADLINE, Reading, query};
use crate::scripted_cluster::{
    CLUSTER_ID, Contents, GroupProtocol, ScriptedCluster, ScriptedGroup, TOPIC_ID,
};

const TOPIC: &str = "tasks";
const GROUP: &str = "tasks-workers";
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A cluster with one topic of one partition with messages up to `end`, of which a group has committed those before
/// `committed`.
async fn start(committed: i64, end: i64) -> ScriptedCluster {
    let group = ScriptedGroup {
        topic: TOPIC,
        committed: vec![VecDeque::from([Some(committed)])],
        members: Vec::new(),
        protocol: GroupProtocol::Classic,
    };
    let contents = Contents {
        topics: BTreeMap::from([(TOPIC, vec![VecDeque::from([end])])]),
        groups: BTreeMap::from([(GROUP, group)]),
        ..Contents::default()
    };
    ScriptedCluster::for_lag(contents).await
}

/// Publishes up to `end`, and commits `next` with this metadata.
fn change(cluster: &ScriptedCluster, end: i64, next: i64, metadata: &str) {
    cluster.change(|contents| {
        contents.topics.insert(TOPIC, vec![VecDeque::from([end])]);
        let group = contents.groups.get_mut(GROUP).expect("a group");
        group.committed = vec![VecDeque::from([Some(next)])];
        contents.metadata.insert((GROUP, 0), metadata.to_owned());
    });
}

/// Messages with these ages in seconds, from offset 0.
fn set_ages(cluster: &ScriptedCluster, ages: &[i64]) {
    let timestamps = ages.iter().map(|age| unix_seconds() * 1_000 - age * 1_000);
    cluster.change(|contents| {
        contents.timestamps.insert((TOPIC, 0), timestamps.collect());
    });
}

fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("small")
}

fn with_deadline() -> Query {
    let topic = TopicIdentity {
        cluster_id: Some(CLUSTER_ID.into()),
        topic_id: Some(TOPIC_ID.into()),
    };
    Query {
        adoption: Adoption {
            initialized_for: Some(topic),
            policy: OffsetReset::Earliest,
        },
        start_deadline: Some(START_DEADLINE),
        ..query(TOPIC)
    }
}

/// A reader whose clock started long enough ago.
fn reading(cluster: &ScriptedCluster) -> Reading {
    let mut reading = cluster.reading();
    reading.later();
    reading.later();
    reading
}

/// The queue of the only partition with lag.
#[track_caller]
fn queue(found: &QueryResult) -> PartitionQueue {
    let queue = found.queue.clone().expect("a queue");
    let partitions: [PartitionQueue; 1] = queue.partitions.try_into().expect("one partition with lag");
    let [partition] = partitions;
    partition
}

/// Seconds between the arrival of messages and the reading at `now`, with their number.
fn ages(found: &QueryResult, now: Moment) -> Vec<(u64, u64)> {
    let arrivals = queue(found).arrivals.into_iter();
    arrivals
        .map(|(at, messages)| (now.since(at).as_secs(), messages))
        .collect()
}

#[tokio::test]
async fn messages_have_the_time_of_the_first_reading_beyond_them() {
    let cluster = start(10, 10).await;
    let (mut reading, query) = (reading(&cluster), with_deadline());
    assert_eq!(reading.read_once(&query).await.queue, Some(Queue::default()));
    // One reading every 2 s.
    change(&cluster, 12, 10, "");
    let now = reading.now();
    assert_eq!(ages(&reading.read_once(&query).await, now), [(0, 2)]);
    change(&cluster, 13, 10, "");
    let now = reading.now();
    assert_eq!(ages(&reading.read_once(&query).await, now), [(2, 2), (0, 1)]);
    change(&cluster, 13, 11, "");
    let now = reading.now();
    assert_eq!(ages(&reading.read_once(&query).await, now), [(4, 1), (2, 1)]);
    change(&cluster, 13, 13, "");
    assert_eq!(reading.read_once(&query).await.queue, Some(Queue::default()));
    assert_eq!(
        reading.request_counts().times,
        0,
        "all arrived while they were read"
    );
}

#[tokio::test]
async fn workers_report_the_running_task_and_each_finished_one_once() {
    let cluster = start(10, 13).await;
    let (mut reading, query) = (reading(&cluster), with_deadline());
    let found = reading.read_once(&query).await;
    assert_eq!((queue(&found).running, found.finished), (None, vec![]));

    let started = unix_seconds() - 30;
    let metadata = format!("attempt=1;start={started};percent=40;last=77.5");
    change(&cluster, 13, 11, &metadata);
    let now = reading.now();
    let found = reading.read_once(&query).await;
    let running = queue(&found).running.expect("a running task");
    let elapsed = now.since(running.since);
    assert!((30..40).contains(&elapsed.as_secs()), "{elapsed:?}");
    assert_eq!(running.percent, Some(40));
    let finished = FinishedTask {
        partition: 0,
        next: 11,
        took: Duration::from_millis(77_500),
    };
    assert_eq!(found.finished, [finished]);
    assert_eq!(reading.read_once(&query).await.finished, []);

    // The next one fails.
    change(&cluster, 13, 12, "");
    let found = reading.read_once(&query).await;
    assert_eq!((queue(&found).running, found.finished), (None, vec![]));
}

#[tokio::test]
async fn a_new_process_asks_once_for_the_ages_of_messages_and_only_with_a_start_deadline() {
    let cluster = start(4, 10).await;
    set_ages(&cluster, &[300, 300, 300, 300, 100, 90, 50, 48, 30, 5]);
    let mut reading = reading(&cluster);
    let without_deadline = Query {
        start_deadline: None,
        ..with_deadline()
    };
    let now = reading.now();
    let found = reading.read_once(&without_deadline).await;
    assert_eq!(ages(&found, now), [(0, 6)]);
    assert_eq!(reading.request_counts().times, 0);

    let query = with_deadline();
    let now = reading.now();
    let found = reading.read_once(&query).await;
    let expected = [(60, 2), (40, 2), (20, 1), (2, 1)];
    assert_eq!(ages(&found, now), expected);
    let later = expected.map(|(age, messages)| (age + 2, messages));
    assert_eq!(
        ages(&reading.read_once(&query).await, now + Duration::from_secs(2)),
        later
    );
    assert_eq!(reading.request_counts().times, 3, "one for each age");
}

#[tokio::test]
async fn messages_whose_ages_are_unknown_have_the_time_of_the_first_reading() {
    let cluster = start(4, 10).await;
    let (mut reading, query) = (reading(&cluster), with_deadline());
    let first = reading.now();
    assert_eq!(ages(&reading.read_once(&query).await, first), [(0, 6)]);
    for seconds in [2, 4, 6] {
        let now = reading.now();
        assert_eq!(ages(&reading.read_once(&query).await, now), [(seconds, 6)]);
    }
    assert_eq!(
        reading.request_counts().times,
        9,
        "three rounds, one request for each age"
    );
}

#[tokio::test]
async fn messages_older_than_the_deadline_are_late_in_the_first_reading() {
    let cluster = start(4, 10).await;
    set_ages(&cluster, &[300; 10]);
    let (mut reading, query) = (reading(&cluster), with_deadline());
    let now = reading.now();
    assert_eq!(ages(&reading.read_once(&query).await, now), [(60, 6)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ages_of_messages_are_read_from_real_brokers() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("queue-ages", 1).await.unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()
        .unwrap();
    let now_ms = unix_seconds() * 1_000;
    let published = tokio::task::spawn_blocking(move || {
        for age_ms in [100_000, 50_000, 0] {
            let record = BaseRecord::<str, str>::to("queue-ages").payload("task");
            let record = record.timestamp(now_ms - age_ms);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
    });
    published.await.unwrap();
    // The coordinator may just have started.
    Reading::of(&kafka.bootstrap()).read(&query("queue-ages")).await;
    let mut reading = Reading::of(&kafka.bootstrap());
    reading.later();
    reading.later();
    let query = Query {
        start_deadline: Some(START_DEADLINE),
        ..query("queue-ages")
    };
    let found = reading.read_once(&query).await;
    let arrivals = queue(&found).arrivals;
    let messages: Vec<_> = arrivals.iter().map(|(_, messages)| *messages).collect();
    assert_eq!(messages, [1, 1, 1]);
    let between = |first: usize| arrivals[first + 1].0.since(arrivals[first].0).as_secs();
    assert_eq!((between(0), between(1)), (20, 40));
}
