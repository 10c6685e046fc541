//! Brokers that are killed, restarted, unresponsive or malformed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use separation_kafka::{Cluster, Deadline, OffsetKind, TopicPartition};
use separation_operator::decide::{Lag, Moment};
use separation_operator::observe::{LagReader, Query};
use separation_testbed::{Kafka, KafkaOptions, eventually};

use crate::reading::{COMMITTED_AGE, DEADLINE, Reading, known, plain, publish, query};
use crate::scripted::{HUGE_TOPIC, Script, ScriptedBroker};

/// The operator's deadline of a reading.
const ROUND: Duration = Duration::from_secs(2);

/// Two readings, two seconds apart.
const TWO_POLLS: Duration = Duration::from_secs(4);

fn partitions(topic: &str, count: i32) -> Vec<TopicPartition> {
    let topic: Arc<str> = topic.into();
    let each = (0..count).map(|partition| TopicPartition {
        topic: Arc::clone(&topic),
        partition,
    });
    each.collect()
}

async fn three_brokers(topic: &str, proxied: bool) -> Kafka {
    let options = KafkaOptions {
        brokers: 3,
        proxied,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.expect("brokers");
    kafka.create_topic(topic, 6).await.expect("a topic");
    for partition in 0..6 {
        publish(&kafka, topic, partition, 2).await;
    }
    kafka
}

/// Waits until the lag of all partitions is known again; no wrong lag is read meanwhile.
async fn until_known(reading: &mut Reading, query: &Query, what: &str) {
    eventually(what, 6 * DEADLINE, async || {
        let found = reading.read_within(std::slice::from_ref(query), ROUND).await;
        match &found[0].lag.lag {
            Lag::Known(lag) => {
                assert_eq!(lag.messages(), 6, "{found:?}");
                true
            }
            Lag::Partial { known, .. } => {
                assert!(known.messages() < 6, "{found:?}");
                false
            }
            Lag::Unknown { .. } => false,
        }
    })
    .await;
}

/// Why lag is unknown in one round, which ends within its deadline.
async fn unknown_because(reading: &mut Reading, query: &Query) -> String {
    unknown_within(reading, query, ROUND).await
}

async fn unknown_within(reading: &mut Reading, query: &Query, round: Duration) -> String {
    let started = Instant::now();
    let found = reading.read_within(std::slice::from_ref(query), round).await;
    // The machine of the tests may be busy.
    assert!(started.elapsed() < 2 * round, "{:?}", started.elapsed());
    match &found[0].lag.lag {
        Lag::Unknown { why } => why.to_string(),
        lag => panic!("{lag:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_makes_only_its_own_partitions_unknown_until_others_lead_them() {
    let kafka = three_brokers("faults-killed", false).await;
    let query = query("faults-killed");
    kafka
        .commit(&query.group, "faults-killed", &[1; 6])
        .await
        .unwrap();
    let mut reading = Reading::of(&kafka.bootstrap()).in_real_time();
    assert_eq!(reading.read(&query).await.lag.lag, known([1; 6]));
    let mut partial = 0;
    for broker in 0..3 {
        let mut led = Vec::new();
        for partition in 0..6 {
            led.push(kafka.leader("faults-killed", partition).await.unwrap());
        }
        kafka.kill_broker(broker).await.unwrap();
        let all_partitions = partitions("faults-killed", 6);
        let ends = reading
            .cluster()
            .offsets(&all_partitions, OffsetKind::End, &Deadline::after(ROUND))
            .await;
        for (partition, leader) in all_partitions.iter().zip(&led) {
            if *leader == Some(broker) {
                // A new leader may have been elected already.
                partial += usize::from(ends[partition].is_err());
            } else {
                assert_eq!(ends[partition], Ok(2), "{led:?} without {broker}: {ends:?}");
            }
        }
        // The group's coordinator moves too, one time in three.
        until_known(&mut reading, &query, "all partitions without one broker").await;
        kafka.start_broker(broker).await.unwrap();
        until_known(&mut reading, &query, "all partitions with all brokers").await;
    }
    assert!(partial > 0, "no partition was ever without a leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_broker_affects_only_its_own_partitions_and_opens_no_more_connections() {
    let kafka = three_brokers("faults-unresponsive", true).await;
    let query = query("faults-unresponsive");
    let mut reading = Reading::of(&kafka.bootstrap());
    until_two_each(&mut reading, &query).await;
    let all_partitions = partitions("faults-unresponsive", 6);
    let stalled = kafka.leader("faults-unresponsive", 0).await.unwrap().unwrap();
    let mut led = Vec::new();
    for partition in 0..6 {
        led.push(kafka.leader("faults-unresponsive", partition).await.unwrap());
    }
    kafka.proxy(stalled).stall();
    // On the old connection first; a new client must find another broker than the unresponsive one.
    let newcomer = Cluster::new(&plain(&kafka.bootstrap())).unwrap();
    for cluster in [reading.cluster(), &newcomer, reading.cluster(), &newcomer] {
        let ends = cluster
            .offsets(&all_partitions, OffsetKind::End, &Deadline::after(ROUND))
            .await;
        for (partition, leader) in all_partitions.iter().zip(&led) {
            assert_eq!(ends[partition].is_ok(), *leader != Some(stalled), "{ends:?}");
        }
    }
    kafka.proxy(stalled).forward();
    eventually("all ends, two readings after its return", TWO_POLLS, async || {
        let mut all = true;
        for cluster in [reading.cluster(), &newcomer] {
            let ends = cluster
                .offsets(&all_partitions, OffsetKind::End, &Deadline::after(ROUND))
                .await;
            all &= ends.values().all(Result::is_ok);
        }
        all
    })
    .await;
    // At most two per broker and two more if nothing breaks; the unresponsive one may have been reconnected.
    let opened = reading.cluster().connections_opened();
    assert!(opened <= 8, "{opened} connections");
}

async fn until_two_each(reading: &mut Reading, query: &Query) {
    eventually("a first reading", 3 * DEADLINE, async || {
        reading.read(query).await.lag.lag == known([2; 6])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_broker_is_read_within_two_rounds() {
    let options = KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.unwrap();
    kafka.create_topic("faults-back", 1).await.unwrap();
    let query = query("faults-back");
    let mut reading = Reading::of(&kafka.bootstrap());
    assert_eq!(reading.read(&query).await.lag.lag, known([0]));
    // Often enough that the backoff between two attempts reaches its maximum.
    for _ in 0..8 {
        kafka.proxy(0).refuse();
        let why = unknown_because(&mut reading, &query).await;
        assert!(why.contains("127.0.0.1:"), "{why}");
    }
    kafka.proxy(0).forward();
    eventually("lag again", TWO_POLLS, async || {
        let found = reading.read_within(std::slice::from_ref(&query), ROUND).await;
        found[0].lag.lag == known([0])
    })
    .await;

    // Connections that were cut while idle are reopened within the round that detects it.
    kafka.proxy(0).cut();
    let found = reading.read_within(std::slice::from_ref(&query), ROUND).await;
    assert_eq!(found[0].lag.lag, known([0]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_response_names_its_broker_and_the_next_broker_is_queried() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("faults-nonsense", 1).await.unwrap();
    let query = query("faults-nonsense");
    for (script, expected) in [
        (Script::NotKafka, "no Kafka broker answers"),
        (Script::Oversized, "no Kafka broker answers"),
        (Script::Closes, "no Kafka broker answers"),
        (Script::CountsWithoutItems, "malformed response to Metadata"),
        (Script::WrongCorrelationId, "unexpected correlation id"),
        (Script::TooOld, "fix: use Kafka 3.0 or later"),
    ] {
        let broker = ScriptedBroker::start(script).await;
        let mut reading = Reading::of(&broker.address());
        for _ in 0..3 {
            let why = unknown_because(&mut reading, &query).await;
            assert!(why.contains(&broker.address()), "{why}");
            assert!(why.contains(expected), "{script:?}: {why}");
        }
        let mut reading = Reading::of(&format!("{},{}", broker.address(), kafka.bootstrap()));
        assert_eq!(reading.read(&query).await.lag.lag, known([0]), "{script:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_too_many_partitions_has_unknown_lag_and_takes_no_memory() {
    let query = query(HUGE_TOPIC);
    for (partitions, expected) in [
        // 16 MB encoded, 28 MB decoded, and more partitions than a pool may have workers.
        (900_000, "the response is larger than the request allows"),
        (200_000, "the response to Metadata is too large"),
        (
            50_000,
            "the topic has 50000 partitions, and at most 10000 are read",
        ),
    ] {
        let broker = ScriptedBroker::start(Script::Partitions(partitions)).await;
        let mut reading = Reading::of(&broker.address());
        for _ in 0..3 {
            let why = unknown_within(&mut reading, &query, DEADLINE).await;
            assert!(why.contains(expected), "{partitions}: {why}");
        }
    }
    // The maximum: lag is unknown only because the leading broker does not exist.
    let broker = ScriptedBroker::start(Script::Partitions(10_000)).await;
    let why = unknown_within(&mut Reading::of(&broker.address()), &query, DEADLINE).await;
    assert!(why.contains("broker 1 is unavailable"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_do_not_reveal_what_listens_at_an_address() {
    let query = query("faults-scan");
    let mut reported = std::collections::BTreeSet::new();
    let mut scan = async |address: &str| {
        let mut reading = Reading::of(address);
        for _ in 0..2 {
            let why = unknown_because(&mut reading, &query).await;
            reported.insert(why.replace(address, "ADDRESS"));
        }
    };
    scan("127.0.0.1:1").await;
    scan("no-such-host.invalid:9092").await;
    for script in [Script::NotKafka, Script::Closes, Script::Silent] {
        let service = ScriptedBroker::start(script).await;
        scan(&service.address()).await;
    }
    assert_eq!(reported.len(), 1, "{reported:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_groups_are_read_in_one_round_with_few_requests_over_one_connection() {
    let kafka = Kafka::shared().await.unwrap();
    let mut queries = Vec::new();
    for topic in 0..20 {
        let name = format!("faults-many-{topic}");
        kafka.create_topic(&name, 4).await.unwrap();
        publish(kafka, &name, 3, 1).await;
        queries.extend((0..50).map(|group| Query {
            group: format!("{name}-{group}").into(),
            ..query(&name)
        }));
    }
    let cluster = Arc::new(Cluster::new(&plain(&kafka.bootstrap())).unwrap());
    let mut reader = LagReader::new(Arc::clone(&cluster), COMMITTED_AGE);
    // The coordinator may just have started.
    Reading::of(&kafka.bootstrap()).read(&queries[0]).await;
    let started = Instant::now();
    // On a separate task, as in the operator.
    let read = tokio::spawn(async move {
        let deadline = Deadline::after(DEADLINE);
        let found = reader.read(&queries, Moment::default(), &deadline).await;
        (found, started.elapsed())
    });
    let (found, took) = read.await.unwrap();
    assert_eq!(found.len(), 1_000);
    for found in &found {
        assert_eq!(found.lag.lag, known([0, 0, 0, 1]), "{:?}", found.lag);
    }
    let requests = cluster.requests_sent();
    #[allow(clippy::print_stderr, reason = "a figure for manual runs of the tests")]
    {
        eprintln!("1,000 groups of 4 partitions: {requests} requests, {took:?}");
    }
    // Three for topics, one each for ends and starts, two for coordinators, ten for groups, none for reports of workers
    // of groups that never committed; and some more if a new topic has no leader yet.
    assert!((17..=24).contains(&requests), "{requests} requests");
    assert_eq!(cluster.connections_opened(), 1);
}
