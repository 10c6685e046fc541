//! Brokers that support other versions of the protocol than the latest, such as Redpanda.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use separation_contract::kafka::OffsetReset;
use separation_kafka::{Commit, Deadline, GroupState, TopicPartition};
use separation_operator::apply::offsets::{Commits, StableOffsets, to_adopt, to_replace};
use separation_operator::decide::{
    CostAnnotation, Estimates, History, Lag, LagReading, Mode, Observation, Pod, PodState, Policy,
    ReplicaLimits, Target, Workload, Write, decide,
};
use separation_operator::observe::{Adoption, OffsetAnomaly, Query, QueryResult};

use crate::reading::{DEADLINE, Reading, known};
use crate::scripted_cluster::{
    CLUSTER_ID, Contents, GroupProtocol, ScriptedCluster, ScriptedGroup, TOPIC_ID, Versions,
};

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
        members: vec![("vocals-processor-1", vec![0, 1])],
        protocol: GroupProtocol::Classic,
    };
    let results = ScriptedGroup {
        topic: "results",
        committed: vec![VecDeque::from([Some(4)])],
        members: Vec::new(),
        protocol: GroupProtocol::Classic,
    };
    Contents {
        topics: BTreeMap::from([
            ("tasks", vec![VecDeque::from([10]), VecDeque::from([5])]),
            ("results", vec![VecDeque::from([4])]),
        ]),
        groups: BTreeMap::from([("processors", tasks), ("uploaders", results)]),
        ..Contents::default()
    }
}

fn query(group: &str, topic: &str) -> Query {
    Query {
        topic: topic.into(),
        group: group.into(),
        adoption: Adoption::pending(OffsetReset::Earliest),
        start_deadline: None,
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

/// A pool of a scripted cluster. Its processors have a task topic of two partitions.
struct Pool {
    cluster: ScriptedCluster,
    reading: Reading,
    query: Query,
    workload: Workload,
    history: History,
}

impl Pool {
    async fn start(versions: Versions) -> Self {
        let group = ScriptedGroup {
            topic: "tasks",
            committed: vec![VecDeque::from([None]); 2],
            members: Vec::new(),
            protocol: GroupProtocol::Classic,
        };
        let contents = Contents {
            topics: BTreeMap::from([("tasks", vec![VecDeque::from([10]), VecDeque::from([5])])]),
            groups: BTreeMap::from([("processors", group)]),
            ..Contents::default()
        };
        let cluster = ScriptedCluster::start(versions, contents).await;
        Self {
            reading: cluster.reading(),
            cluster,
            query: Query {
                adoption: Adoption::pending(OffsetReset::Latest),
                ..query("processors", "tasks")
            },
            workload: Workload::default(),
            history: History::default(),
        }
    }

    fn set_ends(&self, ends: [i64; 2]) {
        let ends = ends.map(|end| VecDeque::from([end]));
        self.cluster.change(|contents| {
            contents.topics.insert("tasks", ends.to_vec());
        });
    }

    fn set_group(&self, committed: [i64; 2], members: &[(&'static str, Vec<i32>)]) {
        self.cluster.change(|contents| {
            let group = contents.groups.get_mut("processors").expect("a group");
            group.committed = committed.map(|next| VecDeque::from([Some(next)])).to_vec();
            group.members = members.to_vec();
        });
    }

    /// Reads until offsets are stable, and commits the ones that `choose` returns.
    async fn commit_once_stable(&mut self, choose: impl Fn(&QueryResult, &Adoption) -> Commits) {
        let mut stable_offsets = StableOffsets::default();
        let found = loop {
            let at = self.reading.now();
            let found = self.reading.read_once(&self.query).await;
            stable_offsets.record(found.offsets.as_ref(), at);
            if stable_offsets.are_stable() {
                break found;
            }
        };
        let (commits, deadline) = (choose(&found, &self.query.adoption), Deadline::after(DEADLINE));
        let commit = self
            .reading
            .cluster()
            .commit("processors", "tasks", &commits, &deadline);
        commit.await.expect("committed");
        let topic = found.topic.expect("a topic");
        self.query.adoption.initialized_for = Some(topic.identity);
    }

    /// Reads and decides until there are this many replicas; in 20 s at most.
    async fn until_replicas(&mut self, replicas: u32) {
        for _ in 0..10 {
            self.decide_once().await;
            if self.workload.replicas == replicas {
                return;
            }
        }
        panic!("no {replicas} replicas: {:?}", self.workload);
    }

    /// A reading, and the decision on it. All of its writes are executed.
    async fn decide_once(&mut self) {
        let at = self.reading.now();
        let lag = self.reading.read_once(&self.query).await.lag.lag;
        let observation = Observation {
            lag: LagReading { at, lag },
            group: self.reading.group(&self.query).await,
            workload: self.workload.clone(),
            conflict: None,
            refusal: None,
            estimates: Estimates::default(),
            queue: None,
        };
        let now = self.reading.now();
        let mut decision = decide(&policy(), &observation, std::mem::take(&mut self.history), now);
        let workload = &mut self.workload;
        while decision
            .execute_next(now, |write| execute(workload, write))
            .is_some()
        {}
        self.history = decision.history;
    }
}

/// A worker for each task, without any waits.
fn policy() -> Policy {
    Policy {
        limits: ReplicaLimits::new(0..=2).expect("in order"),
        target: Target::TasksPerReplica(NonZeroU32::MIN),
        mode: Mode::Auto,
        stabilization: Duration::ZERO,
        last_replica_stabilization: Duration::ZERO,
        cooldown: Duration::ZERO,
        rebalance_hold: Duration::ZERO,
        stale_after: Duration::from_secs(30),
    }
}

fn execute(workload: &mut Workload, write: &Write) {
    let (pods, annotation) = match write {
        Write::SetReplicas(replicas) => return set_replicas(workload, *replicas),
        Write::Annotate(pods) => (pods, CostAnnotation::Present),
        Write::Unannotate(pods) => (pods, CostAnnotation::Absent),
    };
    for pod in &mut workload.pods {
        if pods.contains(&pod.name) {
            pod.cost_annotation = annotation;
        }
    }
}

/// As Kubernetes does: pods with a deletion cost are deleted first, and new ones are ready soon.
fn set_replicas(workload: &mut Workload, replicas: u32) {
    workload.replicas = replicas;
    let (pods, count) = (&mut workload.pods, usize::try_from(replicas).expect("a few"));
    pods.sort_by_key(|pod| pod.cost_annotation == CostAnnotation::Present);
    pods.truncate(count);
    while pods.len() < count {
        pods.push(Pod {
            name: format!("vocals-processor-{}", pods.len()).as_str().into(),
            state: PodState::Ready,
            cost_annotation: CostAnnotation::Absent,
            replica_set: "vocals-processor".into(),
            created: None,
        });
    }
}

#[tokio::test]
async fn the_life_of_a_pool_passes_on_redpanda() {
    let mut pool = Pool::start(redpanda()).await;
    let [first, second] = ["vocals-processor-0", "vocals-processor-1"];
    // Initialization: existing messages are skipped.
    pool.commit_once_stable(|found, adoption| {
        let offsets = found.offsets.as_ref().expect("offsets");
        to_adopt(offsets, adoption).expect("all are known")
    })
    .await;
    assert_eq!(pool.reading.read_once(&pool.query).await.lag.lag, known([0, 0]));

    // Scale-up from zero.
    pool.set_ends([11, 6]);
    pool.until_replicas(2).await;
    pool.set_group([10, 5], &[(first, vec![0]), (second, vec![1])]);
    for _ in 0..5 {
        pool.decide_once().await;
        assert_eq!(pool.workload.replicas, 2, "both are busy");
    }
    // Scale-down: the second one is still busy.
    pool.set_group([11, 5], &[(first, vec![0]), (second, vec![1])]);
    pool.until_replicas(1).await;
    assert_eq!(pool.workload.pods[0].name.as_str(), second);
    pool.set_group([11, 6], &[(second, vec![0, 1])]);
    pool.until_replicas(0).await;

    // Offsets of the group without members are kept.
    pool.set_group([11, 6], &[]);
    let deadline = Deadline::after(DEADLINE);
    let kept = pool
        .reading
        .cluster()
        .commit_again("processors", "tasks", &[0, 1], &deadline);
    kept.await.expect("committed");
    pool.reading.later();
    assert_eq!(pool.reading.read_once(&pool.query).await.lag.lag, known([0, 0]));

    // The topic is recreated. Nothing of it is skipped, also once it has grown beyond the old offsets.
    pool.set_ends([3, 0]);
    let found = pool.reading.read_once(&pool.query).await;
    assert_eq!(found.lag.lag, known([3, 0]));
    let beyond = |partition, committed, end| OffsetAnomaly::BeyondEnd {
        partition,
        committed,
        end,
    };
    assert_eq!(found.lag.anomalies, [beyond(0, 11, 3), beyond(1, 6, 0)]);
    pool.commit_once_stable(|found, _| to_replace(found.offsets.as_ref().expect("offsets")))
        .await;
    pool.set_ends([20, 9]);
    assert_eq!(pool.reading.read_once(&pool.query).await.lag.lag, known([20, 9]));
}

#[tokio::test]
async fn an_offset_in_an_open_transaction_has_no_lag_and_is_not_replaced() {
    let mut pool = Pool::start(redpanda()).await;
    pool.cluster.change(|contents| contents.uncommitted = 2);
    // At the high watermark of the first partition, and beyond that of the second, which ends at 5.
    pool.set_group([12, 8], &[]);
    let found = pool.reading.read_once(&pool.query).await;
    assert_eq!(found.lag.lag, known([0, 5]));
    let beyond = OffsetAnomaly::BeyondEnd {
        partition: 1,
        committed: 8,
        end: 5,
    };
    assert_eq!(found.lag.anomalies, [beyond]);
    let replaced = to_replace(found.offsets.as_ref().expect("offsets"));
    assert_eq!(replaced, [Commit::new(1, 0)]);
}
