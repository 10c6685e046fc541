//! Groups of the consumer protocol (KIP-848), on a scripted broker and on a real Kafka.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use separation_kafka::{Commit, Deadline, Group, GroupState, ReadError, ReadErrorKind};
use separation_operator::decide::{GroupReading, Member, MemberWork};
use separation_operator::observe::Query;
use separation_testbed::{Kafka, eventually};

use crate::reading::{DEADLINE, Reading, query};
use crate::scripted_cluster::{Contents, GroupProtocol, ScriptedCluster, ScriptedGroup};

const TOPIC: &str = "tasks";
const GROUP: &str = "tasks-workers";

/// A cluster that supports ConsumerGroupDescribe in a range of versions, with a group of one member.
async fn start(lowest: i16, highest: i16, protocol: GroupProtocol) -> ScriptedCluster {
    let group = ScriptedGroup {
        topic: TOPIC,
        committed: vec![VecDeque::from([Some(0)]); 2],
        members: vec![("another-client", vec![0, 1])],
        protocol,
    };
    let contents = Contents {
        topics: BTreeMap::from([(TOPIC, vec![VecDeque::from([0]); 2])]),
        groups: BTreeMap::from([(GROUP, group)]),
        ..Contents::default()
    };
    let mut versions = [
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::ListOffsets,
        ApiKey::FindCoordinator,
        ApiKey::OffsetFetch,
        ApiKey::DescribeGroups,
    ]
    .map(|key| (key, 0, 20))
    .to_vec();
    versions.push((ApiKey::ConsumerGroupDescribe, lowest, highest));
    ScriptedCluster::start(versions, contents).await
}

async fn describe(reading: &Reading, group: &str) -> Result<Group, ReadError> {
    let (groups, deadline) = ([Arc::from(group)], Deadline::after(DEADLINE));
    let mut described = reading.cluster().describe_groups(&groups, &deadline).await;
    described.remove(0)
}

fn members(reading: GroupReading) -> Vec<Member> {
    match reading {
        GroupReading::Stable { members, .. } => members,
        reading => panic!("{reading:?}"),
    }
}

fn member(name: &str, work: MemberWork) -> Member {
    Member {
        pod: name.into(),
        work,
    }
}

#[tokio::test]
async fn members_are_read_in_every_version_and_a_group_without_members_is_empty() {
    for highest in 0..=1 {
        let cluster = start(0, highest, GroupProtocol::Consumer("Stable")).await;
        let mut reading = cluster.reading();
        let found = members(reading.group(&query(TOPIC)).await);
        let all = MemberWork::Partitions(vec![0, 1]);
        assert_eq!(found, [member("another-client", all)], "version {highest}");
        let host = describe(&reading, GROUP)
            .await
            .expect("a group")
            .members
            .remove(0)
            .host;
        assert_eq!(&*host, "/10.0.0.7");

        cluster.change(|contents| contents.groups.get_mut(GROUP).expect("a group").members.clear());
        assert_eq!(members(reading.group(&query(TOPIC)).await), []);
    }
}

#[tokio::test]
async fn while_partitions_move_every_member_may_hold_a_task() {
    for state in ["Assigning", "Reconciling"] {
        let cluster = start(0, 1, GroupProtocol::Consumer(state)).await;
        let found = members(cluster.reading().group(&query(TOPIC)).await);
        assert_eq!(found, [member("another-client", MemberWork::Task)], "{state}");
    }
}

#[tokio::test]
async fn only_groups_that_the_classic_request_does_not_know_need_another_request() {
    let cluster = start(0, 1, GroupProtocol::Classic).await;
    let reading = cluster.reading();
    for (group, state, requests) in [
        (GROUP, GroupState::Stable, 1),
        ("never-used", GroupState::Empty, 2),
    ] {
        // The first one also finds the coordinator.
        describe(&reading, group).await.expect("a group");
        let before = reading.cluster().requests_sent();
        let found = describe(&reading, group).await.expect("a group");
        assert_eq!(found.state, state);
        assert_eq!(reading.cluster().requests_sent() - before, requests, "{group}");
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_described_is_unknown_and_not_empty() {
    for error in [
        ResponseError::GroupAuthorizationFailed,
        ResponseError::TopicAuthorizationFailed,
    ] {
        let cluster = start(0, 1, GroupProtocol::Refused(error)).await;
        let refused = describe(&cluster.reading(), GROUP)
            .await
            .expect_err("it is refused");
        assert_eq!(refused.kind, ReadErrorKind::Unauthorized);
        assert!(
            refused
                .why
                .starts_with("members of the consumer protocol (KIP-848) are unknown: "),
            "{refused}"
        );
    }
    // Later brokers, which this client does not understand.
    let cluster = start(2, 2, GroupProtocol::Consumer("Stable")).await;
    let unknown = describe(&cluster.reading(), GROUP).await;
    let unknown = unknown.expect_err("its members are unknown");
    assert!(unknown.why.contains("in versions 2 to 2"), "{unknown}");
    // Brokers that have the protocol disabled, as before Kafka 4.0.
    let cluster = start(0, 1, GroupProtocol::Refused(ResponseError::UnsupportedVersion)).await;
    let found = describe(&cluster.reading(), GROUP).await.expect("a group");
    assert_eq!((found.state, found.members), (GroupState::Empty, vec![]));
}

fn consumer(kafka: &Kafka, query: &Query, client_id: &str, settings: [(&str, &str); 2]) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", &*query.group)
        .set("client.id", client_id);
    for (name, value) in settings {
        config.set(name, value);
    }
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[&query.topic]).expect("subscribed");
    consumer
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_both_protocols_in_one_group_are_read_from_kafka() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("consumer-protocol", 4).await.unwrap();
    let query = query("consumer-protocol");
    let mut reading = Reading::of(&kafka.bootstrap());
    assert_eq!(members(reading.group(&query).await), []);
    let classic = [
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("heartbeat.interval.ms", "500"),
    ];
    let worker = consumer(kafka, &query, "worker", classic);
    let alone = [member("worker", MemberWork::Partitions(vec![0, 1, 2, 3]))];
    eventually("a member that has all", 3 * DEADLINE, async || {
        let _ = worker.poll(Duration::ZERO);
        let reading = reading.group(&query).await;
        matches!(reading, GroupReading::Stable { members, .. } if members == alone)
    })
    .await;

    // The group changes its protocol with the first such member.
    let modern = [("group.protocol", "consumer"), ("auto.offset.reset", "earliest")];
    let foreign = consumer(kafka, &query, "another-client", modern);
    let held = eventually("two members with partitions", 6 * DEADLINE, async || {
        let _ = (worker.poll(Duration::ZERO), foreign.poll(Duration::ZERO));
        let found = reading.described(&query).await;
        let is_complete = found.state == GroupState::Stable && found.members.len() == 2;
        is_complete.then(|| found.held_partitions(&query.topic)).flatten()
    })
    .await;
    assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    let deadline = Deadline::after(DEADLINE);
    let commits = [Commit::new(0, 0)];
    let refused = reading
        .cluster()
        .commit(&query.group, &query.topic, &commits, &deadline)
        .await;
    assert!(
        refused
            .expect_err("it has members")
            .why
            .contains("the group has members")
    );

    drop(foreign);
    eventually("the worker alone", 6 * DEADLINE, async || {
        let _ = worker.poll(Duration::ZERO);
        let reading = reading.group(&query).await;
        matches!(reading, GroupReading::Stable { members, .. } if members == alone)
    })
    .await;
    drop(worker);
    eventually("an empty group", 3 * DEADLINE, async || {
        let found = reading.described(&query).await;
        found.state == GroupState::Empty && found.members.is_empty()
    })
    .await;
    let deadline = Deadline::after(DEADLINE);
    let commit = reading
        .cluster()
        .commit(&query.group, &query.topic, &commits, &deadline);
    commit.await.expect("committed");
}
