//! Single responses that must not be taken at face value, from a scripted broker.

use std::collections::{BTreeMap, VecDeque};

use separation_contract::kafka::OffsetReset;
use separation_kafka::TopicIdentity;
use separation_operator::decide::Lag;
use separation_operator::observe::{Adoption, OffsetAnomaly, Query};

use crate::reading::known;
use crate::scripted_cluster::{
    CLUSTER_ID, Contents, GroupProtocol, ScriptedCluster, ScriptedGroup, TOPIC_ID,
};

const TOPIC: &str = "tasks";
const GROUPS: [&str; 2] = ["one", "two"];

/// A cluster with one topic of one partition, its next end offsets, and the next committed offsets of each group.
async fn start(ends: &[i64], committed: &[Option<i64>]) -> ScriptedCluster {
    let group = ScriptedGroup {
        topic: TOPIC,
        committed: vec![VecDeque::from(committed.to_vec())],
        members: Vec::new(),
        protocol: GroupProtocol::Classic,
    };
    let contents = Contents {
        topics: BTreeMap::from([(TOPIC, vec![VecDeque::from(ends.to_vec())])]),
        groups: BTreeMap::from(GROUPS.map(|name| (name, group.clone()))),
        ..Contents::default()
    };
    ScriptedCluster::for_lag(contents).await
}

fn query(group: &str) -> Query {
    Query {
        topic: TOPIC.into(),
        group: group.into(),
        adoption: Adoption::pending(OffsetReset::Earliest),
        start_deadline: None,
    }
}

/// As [`query`], for a group whose offsets were initialized, by this process or another one.
fn initialized(group: &str) -> Query {
    let topic = TopicIdentity {
        cluster_id: Some(CLUSTER_ID.into()),
        topic_id: Some(TOPIC_ID.into()),
    };
    Query {
        adoption: Adoption {
            initialized_for: Some(topic),
            policy: OffsetReset::Earliest,
        },
        ..query(group)
    }
}

#[tokio::test]
async fn a_commit_after_the_end_was_read_is_not_beyond_the_end() {
    let cluster = start(&[10, 12], &[Some(12)]).await;
    let found = cluster.reading().read(&initialized("one")).await;
    assert_eq!(found.lag.lag, known([0]));
    assert_eq!(found.lag.anomalies, []);

    let cluster = start(&[10, 11], &[Some(12)]).await;
    let found = cluster.reading().read(&initialized("one")).await;
    assert_eq!(found.lag.lag, known([11]));
    let beyond = OffsetAnomaly::BeyondEnd {
        partition: 0,
        committed: 12,
        end: 11,
    };
    assert_eq!(found.lag.anomalies, [beyond]);
}

#[tokio::test]
async fn missing_offsets_are_believed_after_a_grace_period_of_ten_seconds() {
    let cluster = start(&[10], &[None, Some(7)]).await;
    let mut reading = cluster.reading();
    let query = initialized("one");
    let lag = reading.read_once(&query).await.lag.lag;
    assert!(matches!(lag, Lag::Unknown { .. }), "{lag:?}");
    assert_eq!(reading.read_once(&query).await.lag.lag, known([3]));

    let cluster = start(&[10], &[None]).await;
    let mut reading = cluster.reading();
    for _ in 0..5 {
        let lag = reading.read_once(&query).await.lag.lag;
        assert!(matches!(lag, Lag::Unknown { .. }), "{lag:?}");
    }
    assert_eq!(reading.read_once(&query).await.lag.lag, known([10]));
}

#[tokio::test]
async fn known_offsets_of_a_group_outlive_rounds_that_do_not_read_it() {
    let cluster = start(&[10, 10, 11], &[Some(7), None]).await;
    let mut reading = cluster.reading();
    assert_eq!(reading.read_once(&query("one")).await.lag.lag, known([3]));
    // A role with a shorter interval.
    assert_eq!(reading.read_once(&query("two")).await.lag.lag, known([3]));
    let lag = reading.read_once(&query("one")).await.lag.lag;
    assert!(matches!(lag, Lag::Unknown { .. }), "{lag:?}");
}
