//! Brokers that support other versions of the protocol than the latest, such as Redpanda.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kafka_protocol::messages::ApiKey;
use separation_contract::kafka::OffsetReset;
use separation_kafka::{Commit, Deadline, GroupState, TopicPartition};
use separation_operator::decide::Lag;
use separation_operator::observe::{Adoption, Query, QueryResult};

use crate::reading::{DEADLINE, Reading, known};
use crate::scripted_cluster::{CLUSTER_ID, Contents, ScriptedCluster, ScriptedGroup, TOPIC_ID, Versions};

/// The requests of this client with the lowest and the highest version that it supports.
const OURS: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Metadata, 4, 10),
    (ApiKey::ListOffsets, 2, 6),
    (ApiKey::FindCoordinator, 1, 4),
    (ApiKey::OffsetFetch, 3, 8),
    (ApiKey::OffsetCommit, 3, 4),
    (ApiKey::DescribeGroups, 1, 5),
];

/// The first version of Metadata with topic ids.
const FIRST_WITH_TOPIC_IDS: i16 = 10;

fn with_api_versions(versions: impl IntoIterator<Item = (ApiKey, i16, i16)>) -> Versions {
    [(ApiKey::ApiVersions, 0, 3)]
        .into_iter()
        .chain(versions)
        .collect()
}

/// A broker that supports no version of a request beyond the `steps`th of this client.
fn first_versions(steps: i16) -> Versions {
    with_api_versions(OURS.map(|(key, lowest, highest)| (key, 0, highest.min(lowest + steps))))
}

fn redpanda() -> Versions {
    with_api_versions([
        (ApiKey::Metadata, 0, 7),
        (ApiKey::ListOffsets, 0, 4),
        (ApiKey::FindCoordinator, 0, 3),
        (ApiKey::OffsetFetch, 0, 7),
        (ApiKey::OffsetCommit, 0, 7),
        (ApiKey::DescribeGroups, 0, 4),
    ])
}

/// Tasks in two partitions, one of which was never committed, and results without lag.
fn contents() -> Contents {
    let tasks = ScriptedGroup {
        topic: "tasks",
        committed: vec![VecDeque::from([Some(7)]), VecDeque::from([None])],
        member: Some("vocals-processor-1"),
    };
    let results = ScriptedGroup {
        topic: "results",
        committed: vec![VecDeque::from([Some(4)])],
        member: None,
    };
    Contents {
        topics: BTreeMap::from([
            ("tasks", vec![VecDeque::from([10]), VecDeque::from([5])]),
            ("results", vec![VecDeque::from([4])]),
        ]),
        groups: BTreeMap::from([("processors", tasks), ("uploaders", results)]),
    }
}

fn query(group: &str, topic: &str) -> Query {
    Query {
        topic: topic.into(),
        group: group.into(),
        adoption: Adoption::pending(OffsetReset::Earliest),
    }
}

async fn read(reading: &mut Reading) -> Vec<QueryResult> {
    let queries = [query("processors", "tasks"), query("uploaders", "results")];
    reading.read_within(&queries, DEADLINE).await
}

async fn check(versions: &[(ApiKey, i16, i16)]) {
    let cluster = ScriptedCluster::start(versions.to_vec(), contents()).await;
    let mut reading = cluster.reading();
    let found = read(&mut reading).await;
    assert_eq!(found[0].lag.lag, known([3, 5]), "{versions:?}");
    assert_eq!(found[1].lag.lag, known([0]), "{versions:?}");

    let identity = &found[0].topic.as_ref().expect("a topic").identity;
    let has_ids = versions.contains(&(ApiKey::Metadata, 0, FIRST_WITH_TOPIC_IDS));
    assert_eq!(identity.cluster_id.as_deref(), Some(CLUSTER_ID));
    assert_eq!(identity.topic_id.as_deref(), has_ids.then_some(TOPIC_ID));

    let group = reading.described(&query("processors", "tasks")).await;
    assert_eq!(group.state, GroupState::Stable, "{versions:?}");
    assert_eq!(&*group.members[0].client_id, "vocals-processor-1");
    assert_eq!(group.held_partitions("tasks"), Some(vec![vec![0, 1]]));
    let group = reading.described(&query("uploaders", "results")).await;
    assert_eq!((group.state, group.members), (GroupState::Empty, vec![]));

    let (commits, deadline) = ([Commit::new(0, 3)], Deadline::after(DEADLINE));
    let commit = reading
        .cluster()
        .commit("uploaders", "results", &commits, &deadline);
    commit.await.expect("committed");
    let partition = TopicPartition {
        topic: "results".into(),
        partition: 0,
    };
    let requested = [(Arc::from("uploaders"), vec![partition.clone()])];
    let committed = reading.cluster().committed_offsets(&requested, &deadline).await;
    let commit = committed[0][&partition]
        .clone()
        .expect("read")
        .expect("committed");
    assert_eq!(commit.next, 3, "{versions:?}");
}

#[tokio::test]
async fn lag_and_members_are_read_from_redpanda() {
    check(&redpanda()).await;
}

#[tokio::test]
async fn every_version_of_every_request_is_understood() {
    for steps in 0..=6 {
        check(&first_versions(steps)).await;
    }
}

#[tokio::test]
async fn a_request_without_a_common_version_is_named_with_both_ranges_and_others_are_answered() {
    let versions = first_versions(6)
        .into_iter()
        .map(|(key, lowest, highest)| match key {
            ApiKey::ListOffsets => (key, 7, 9),
            _ => (key, lowest, highest),
        });
    let cluster = ScriptedCluster::start(versions.collect(), contents()).await;
    let mut reading = cluster.reading();
    let found = read(&mut reading).await;
    let Lag::Unknown { why } = &found[0].lag.lag else {
        panic!("{found:?}")
    };
    assert!(
        why.contains(
            "the broker supports ListOffsets in versions 7 to 9, and this program in 2 to 6; fix: use a later \
             version of this program"
        ),
        "{why}"
    );
    let group = reading.described(&query("processors", "tasks")).await;
    assert_eq!(group.state, GroupState::Stable);
}
