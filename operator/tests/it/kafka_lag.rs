//! Lag and members, read from a real Kafka.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::spawn;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use separation_operator::decide::{GroupReading, Lag, MemberWork};
use separation_operator::observe::OffsetAnomaly;
use separation_testbed::{Kafka, KafkaOptions, eventually};

use crate::reading::{DEADLINE, Reading, adopted, known, publish, query};

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_read_per_partition_and_idle_groups_are_read_rarely() {
    let kafka = Kafka::shared().await.unwrap();
    let query = query("lag-basic");
    kafka.create_topic("lag-basic", 3).await.unwrap();
    publish(kafka, "lag-basic", 0, 2).await;
    publish(kafka, "lag-basic", 2, 1).await;
    let mut reading = Reading::of(&kafka.bootstrap());
    let found = reading.read(&query).await;
    assert_eq!(found.lag.lag, known([2, 0, 1]));
    assert_eq!(found.lag.anomalies, []);

    let query = adopted(&query, &found);
    kafka.commit(&query.group, "lag-basic", &[2, 0, 0]).await.unwrap();
    assert_eq!(reading.read(&query).await.lag.lag, known([0, 0, 1]));
    kafka.commit(&query.group, "lag-basic", &[2, 0, 1]).await.unwrap();
    assert_eq!(reading.read(&query).await.lag.lag, known([0, 0, 0]));

    // Nothing changes: one request for the ends, and none about the group.
    let before = reading.request_counts();
    assert_eq!(reading.read(&query).await.lag.lag, known([0, 0, 0]));
    let after = reading.request_counts();
    assert_eq!(
        (after.ends - before.ends, after.groups, after.starts),
        (3, before.groups, before.starts)
    );

    // A message is detected immediately; a group that was rewound by hand, after the refresh interval.
    publish(kafka, "lag-basic", 1, 1).await;
    assert_eq!(reading.read(&query).await.lag.lag, known([0, 1, 0]));
    kafka.commit(&query.group, "lag-basic", &[2, 1, 1]).await.unwrap();
    assert_eq!(reading.read(&query).await.lag.lag, known([0, 0, 0]));
    kafka.commit(&query.group, "lag-basic", &[0, 1, 1]).await.unwrap();
    reading.later();
    assert_eq!(reading.read(&query).await.lag.lag, known([2, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_are_counted_with_all_their_messages() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lag-grows", 4).await.unwrap();
    let mut reading = Reading::of(&kafka.bootstrap());
    let query = query("lag-grows");
    let query = adopted(&query, &reading.read(&query).await);
    kafka.add_partitions("lag-grows", 8).await.unwrap();
    for partition in 4..8 {
        publish(kafka, "lag-grows", partition, 3).await;
    }
    reading.later();
    let found = reading.read(&query).await;
    assert_eq!(found.lag.lag, known([0, 0, 0, 0, 3, 3, 3, 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_counted_from_its_start_and_reported() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lag-recreated", 1).await.unwrap();
    publish(kafka, "lag-recreated", 0, 20).await;
    let mut reading = Reading::of(&kafka.bootstrap());
    let query = query("lag-recreated");
    let query = adopted(&query, &reading.read(&query).await);
    kafka.commit(&query.group, "lag-recreated", &[20]).await.unwrap();
    assert_eq!(reading.read(&query).await.lag.lag, known([0]));

    kafka.delete_topic("lag-recreated").await.unwrap();
    kafka.create_topic("lag-recreated", 1).await.unwrap();
    // The topic is empty, and the group may still have committed 20: the lag is 0. The end offset decreased, so that
    // this reading detects it, whatever the age of the description.
    let found = eventually("the new topic", DEADLINE, async || {
        let found = reading.read(&query).await;
        matches!(found.lag.lag, Lag::Known(_)).then_some(found)
    })
    .await;
    assert_eq!(found.lag.lag, known([0]));
    assert!(
        found.lag.anomalies.contains(&OffsetAnomaly::Recreated),
        "{:?}",
        found.lag.anomalies
    );
    publish(kafka, "lag-recreated", 0, 12).await;
    let found = reading.read(&query).await;
    assert_eq!(found.lag.lag, known([12]));
    assert!(
        found.lag.anomalies.contains(&OffsetAnomaly::Recreated),
        "{:?}",
        found.lag.anomalies
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_aborted_transactions_are_not_lag() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lag-transactions", 1).await.unwrap();
    let query = query("lag-transactions");
    let mut reading = Reading::of(&kafka.bootstrap());
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "lag-transactions")
        .create()
        .unwrap();
    let producer = tokio::task::spawn_blocking(move || {
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to("lag-transactions").payload("open");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
        producer
    });
    let producer = producer.await.unwrap();
    // Not yet visible with read_committed.
    assert_eq!(reading.read(&query).await.lag.lag, known([0]));
    let commit = tokio::task::spawn_blocking(move || producer.commit_transaction(DEADLINE));
    commit.await.unwrap().unwrap();
    // The message and its transaction marker, which is written shortly after the commit is acknowledged: a worker that
    // reaches the end skips it.
    eventually("the marker", DEADLINE, async || {
        let lag = reading.read(&query).await.lag.lag;
        assert!(lag == known([0]) || lag == known([2]), "{lag:?}");
        lag == known([2])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_has_unknown_lag_and_does_not_affect_others() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lag-there", 1).await.unwrap();
    publish(kafka, "lag-there", 0, 1).await;
    let mut reading = Reading::of(&kafka.bootstrap());
    reading.read(&query("lag-there")).await;
    let found = reading
        .read_within(&[query("lag-missing"), query("lag-there")], DEADLINE)
        .await;
    let Lag::Unknown { why } = &found[0].lag.lag else {
        panic!("{found:?}")
    };
    assert!(why.starts_with("topic lag-missing: "), "{why}");
    assert!(why.contains("fix: create it"), "{why}");
    assert_eq!(found[1].lag.lag, known([1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_read_with_their_partitions() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lag-members", 3).await.unwrap();
    let query = query("lag-members");
    let mut reading = Reading::of(&kafka.bootstrap());
    let no_members = reading.group(&query).await;
    assert!(
        matches!(&no_members, GroupReading::Stable { members, .. } if members.is_empty()),
        "{no_members:?}"
    );

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", &*query.group)
        .set("client.id", "vocals-processor-0")
        .create()
        .unwrap();
    consumer.subscribe(&["lag-members"]).unwrap();
    eventually("a member that owns all", DEADLINE, async || {
        let _ = consumer.poll(Duration::ZERO);
        let reading = reading.group(&query).await;
        let GroupReading::Stable { members, .. } = reading else {
            return false;
        };
        let owns_all = members.iter().any(|member| {
            member.pod.as_str() == "vocals-processor-0"
                && member.work == MemberWork::Partitions(vec![0, 1, 2])
        });
        owns_all && members.len() == 1
    })
    .await;
    let group = reading.described(&query).await;
    let [member] = group.members.as_slice() else {
        panic!("{group:?}")
    };
    assert_eq!(
        (&*member.client_id, &*member.host),
        ("vocals-processor-0", "/127.0.0.1")
    );
    assert_eq!(member.assigned_partitions("another topic"), Some(vec![]));
}

/// A worker with a running task: it retains revoked partitions until the other end of the channel is dropped.
struct Busy {
    task: Mutex<Receiver<()>>,
}

impl ClientContext for Busy {}

impl ConsumerContext for Busy {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Revoke(_)) {
            let _ended = self.task().recv();
        }
    }
}

impl Busy {
    fn task(&self) -> MutexGuard<'_, Receiver<()>> {
        self.task.lock().expect("nothing panics while it waits")
    }

    /// Polled by its own thread until the task has ended.
    fn start(config: &ClientConfig, topic: &str) -> Sender<()> {
        let (task, end) = channel();
        let context = Busy {
            task: Mutex::new(end),
        };
        let consumer: BaseConsumer<Busy> = config.create_with_context(context).expect("a consumer");
        consumer.subscribe(&[topic]).expect("a subscription");
        spawn(move || {
            while consumer.context().task().try_recv() == Err(TryRecvError::Empty) {
                let _ = consumer.poll(Duration::from_millis(50));
            }
        });
        task
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_being_revoked_still_count_as_the_members() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lag-held-back", 4).await.unwrap();
    let query = query("lag-held-back");
    let mut reading = Reading::of(&kafka.bootstrap());
    let member = |pod: &str| {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", &*query.group)
            .set("client.id", pod)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("heartbeat.interval.ms", "500");
        config
    };
    let all = MemberWork::Partitions(vec![0, 1, 2, 3]);
    let _task = Busy::start(&member("busy"), "lag-held-back");
    eventually("a member that owns all", DEADLINE, async || {
        let reading = reading.group(&query).await;
        matches!(reading, GroupReading::Stable { members, .. } if members.iter().any(|member| member.work == all))
    })
    .await;
    let joiner: BaseConsumer = member("joiner").create().unwrap();
    joiner.subscribe(&["lag-held-back"]).unwrap();
    eventually("two members", DEADLINE, async || {
        let _ = joiner.poll(Duration::ZERO);
        let reading = reading.group(&query).await;
        matches!(reading, GroupReading::Stable { members, .. } if members.len() == 2)
    })
    .await;
    let owned = reading.described(&query).await;
    let owned: usize = owned
        .members
        .iter()
        .map(|member| member.assigned_partitions("lag-held-back").unwrap().len())
        .sum();
    assert_eq!(owned, 2, "two partitions move, and no member owns them yet");
    let GroupReading::Stable { members, .. } = reading.group(&query).await else {
        panic!("the group rebalances again")
    };
    for member in members {
        let expected = match member.pod.as_str() {
            "busy" => all.clone(),
            _ => MemberWork::Partitions(vec![]),
        };
        assert_eq!(member.work, expected, "{}", member.pod);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_unreachable_lag_is_unknown_by_the_deadline_and_known_again_afterwards() {
    let options = KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.unwrap();
    kafka.create_topic("lag-unreachable", 2).await.unwrap();
    publish(&kafka, "lag-unreachable", 0, 5).await;
    let query = query("lag-unreachable");
    let mut reading = Reading::of(&kafka.bootstrap());
    // A coordinator that has just started reads its offsets first.
    eventually("a first reading", DEADLINE, async || {
        reading.read(&query).await.lag.lag == known([5, 0])
    })
    .await;

    kafka.proxy(0).stall();
    let started = std::time::Instant::now();
    let found = reading
        .read_within(std::slice::from_ref(&query), Duration::from_secs(1))
        .await;
    assert!(matches!(found[0].lag.lag, Lag::Unknown { .. }), "{found:?}");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );

    kafka.proxy(0).refuse();
    let found = reading
        .read_within(std::slice::from_ref(&query), Duration::from_secs(1))
        .await;
    assert!(matches!(found[0].lag.lag, Lag::Unknown { .. }), "{found:?}");

    kafka.proxy(0).forward();
    eventually("a complete reading", DEADLINE, async || {
        let found = reading
            .read_within(std::slice::from_ref(&query), Duration::from_secs(1))
            .await;
        found[0].lag.lag == known([5, 0])
    })
    .await;
}
