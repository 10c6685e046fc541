//! Brokers that go away, come back, fall silent or talk nonsense.

use std::sync::Arc;
use std::time::{Duration, Instant};

use separation_operator::decide::{Lag, Moment};
use separation_operator::kafka::{Cluster, Deadline, TopicPartition, Which};
use separation_operator::observe::{LagReader, Query};
use separation_testbed::{Kafka, KafkaOptions, eventually};

use crate::reading::{COMMITTED_AGE, DEADLINE, Reading, known, plain, publish, query};
use crate::scripted::{HUGE_TOPIC, Script, ScriptedBroker};

/// What the operator gives a reading.
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

/// Lag is known again in whole, and nothing wrong was read on the way.
async fn settles(reading: &mut Reading, query: &Query, what: &str) {
    eventually(what, 6 * DEADLINE, async || {
        let found = reading.read_within(std::slice::from_ref(query), ROUND).await;
        match &found[0].lag.lag {
            Lag::Known(work) => {
                assert_eq!(work.messages(), 6, "{found:?}");
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

/// Why lag is unknown in one round, which ends in its time.
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
async fn of_three_brokers_one_that_is_killed_takes_only_its_own_partitions_away_until_others_lead_them() {
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
        let asked = partitions("faults-killed", 6);
        let ends = reading
            .cluster()
            .offsets(&asked, Which::End, &Deadline::after(ROUND))
            .await;
        for (partition, leader) in asked.iter().zip(&led) {
            if *leader == Some(broker) {
                // A new leader may be there already.
                partial += usize::from(ends[partition].is_err());
            } else {
                assert_eq!(ends[partition], Ok(2), "{led:?} without {broker}: {ends:?}");
            }
        }
        // The group's coordinator moves with it, one time in three.
        settles(&mut reading, &query, "all partitions without one broker").await;
        kafka.start_broker(broker).await.unwrap();
        settles(&mut reading, &query, "all partitions with all brokers").await;
    }
    assert!(partial > 0, "no partition was ever without a leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_answers_costs_a_round_its_own_partitions_and_nobody_a_connection_more() {
    let kafka = three_brokers("faults-silent", true).await;
    let query = query("faults-silent");
    let mut reading = Reading::of(&kafka.bootstrap());
    settled_at_two(&mut reading, &query).await;
    let asked = partitions("faults-silent", 6);
    let silent = kafka.leader("faults-silent", 0).await.unwrap().unwrap();
    let mut led = Vec::new();
    for partition in 0..6 {
        led.push(kafka.leader("faults-silent", partition).await.unwrap());
    }
    kafka.proxy(silent).stall();
    // On the old connection first; a cluster that knows nobody must find its way around the silent one.
    let newcomer = Cluster::new(&plain(&kafka.bootstrap())).unwrap();
    for cluster in [reading.cluster(), &newcomer, reading.cluster(), &newcomer] {
        let ends = cluster.offsets(&asked, Which::End, &Deadline::after(ROUND)).await;
        for (partition, leader) in asked.iter().zip(&led) {
            assert_eq!(ends[partition].is_ok(), *leader != Some(silent), "{ends:?}");
        }
    }
    kafka.proxy(silent).forward();
    eventually("all ends, two readings after its return", TWO_POLLS, async || {
        let mut all = true;
        for cluster in [reading.cluster(), &newcomer] {
            let ends = cluster.offsets(&asked, Which::End, &Deadline::after(ROUND)).await;
            all &= ends.values().all(Result::is_ok);
        }
        all
    })
    .await;
    // At most two per broker and two more, as long as nothing breaks; the silent one may have been tried anew.
    let opened = reading.cluster().connections_opened();
    assert!(opened <= 8, "{opened} connections");
}

async fn settled_at_two(reading: &mut Reading, query: &Query) {
    eventually("a first reading", 3 * DEADLINE, async || {
        reading.read(query).await.lag.lag == known([2; 6])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_is_read_by_the_second_round_after_it() {
    let options = KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.unwrap();
    kafka.create_topic("faults-back", 1).await.unwrap();
    let query = query("faults-back");
    let mut reading = Reading::of(&kafka.bootstrap());
    assert_eq!(reading.read(&query).await.lag.lag, known([0]));
    // Often enough that the wait between two attempts grows to its longest.
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

    // Connections that were cut while nobody asked are made anew within the round that finds out.
    kafka.proxy(0).cut();
    let found = reading.read_within(std::slice::from_ref(&query), ROUND).await;
    assert_eq!(found[0].lag.lag, known([0]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_an_error_with_its_broker_and_another_broker_is_asked() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("faults-nonsense", 1).await.unwrap();
    let query = query("faults-nonsense");
    for (script, expected) in [
        (Script::NotKafka, "no Kafka broker answers"),
        (Script::Oversized, "no Kafka broker answers"),
        (Script::Closes, "no Kafka broker answers"),
        (Script::CountsWithoutItems, "malformed response to Metadata"),
        (Script::AnswersAnother, "unexpected correlation id"),
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
async fn a_topic_with_too_many_partitions_is_unknown_lag_and_takes_no_memory() {
    let query = query(HUGE_TOPIC);
    for (partitions, expected) in [
        // 16 MB as they come, 28 MB once they are decoded, and more than a pool may have workers.
        (900_000, "the response is larger than the question allows"),
        (200_000, "the answer to Metadata is too large"),
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
    // As many as are read: what keeps their lag unknown is the broker that leads them, and is not there.
    let broker = ScriptedBroker::start(Script::Partitions(10_000)).await;
    let why = unknown_within(&mut Reading::of(&broker.address()), &query, DEADLINE).await;
    assert!(why.contains("broker 1 is unavailable"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_at_an_address_that_is_no_broker_cannot_be_told_from_what_is_reported() {
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
async fn a_thousand_groups_are_read_in_one_round_with_few_questions_over_one_connection() {
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
    // On a task of its own, as the operator does.
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
    let questions = cluster.questions();
    #[allow(clippy::print_stderr, reason = "a figure for whoever runs the tests by hand")]
    {
        eprintln!("1,000 groups of 4 partitions: {questions} questions, {took:?}");
    }
    // Three for topics, one for ends and starts each, two for coordinators, ten for groups, none for reports of workers of groups
    // that never committed; and some more where a topic of a moment ago has no leader yet.
    assert!((17..=24).contains(&questions), "{questions} questions");
    assert_eq!(cluster.connections_opened(), 1);
}
