//! Commits after readings of a scripted group.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use separation_kafka::{Cluster, ClusterSettings, ReadError, Topic};

use super::*;
use crate::apply::offsets::tests::commits;
use crate::crd::{InitialOffset, from_yaml};
use crate::decide::{LagByPartition, Member, MemberWork};
use crate::observe::{PartitionOffsets, Query, QueryResult};
use crate::plan::{PoolPlan, Role};

const RECOMMIT_AFTER: Duration = Duration::from_secs(3_600);

pub(in crate::reconcile) fn plan(processor: &str) -> PoolPlan {
    let yaml = format!(
        "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media, uid: pool}}
spec:
  kafka: {{bootstrapServers: 'k:1'}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
  processor: {{consumerGroup: separators, initialOffset: Latest, {processor}}}
"
    );
    PoolPlan::from_pool(&from_yaml(&yaml).unwrap()).unwrap()
}

pub(in crate::reconcile) fn identity(cluster: &str, topic: &str) -> TopicIdentity {
    TopicIdentity {
        cluster_id: known(cluster),
        topic_id: known(topic),
    }
}

pub(in crate::reconcile) fn status(cluster: &str, topic: &str, offsets: &[i64]) -> OffsetsStatus {
    OffsetsStatus {
        topic_id: topic.to_owned(),
        cluster_id: cluster.to_owned(),
        consumer_group: "separators".to_owned(),
        committed: offsets.to_vec(),
        workers_joined: false,
        partitions: 2,
        initial_offset: InitialOffset::Latest,
        initialized_time: Time(Timestamp::UNIX_EPOCH),
    }
}

pub(in crate::reconcile) fn members(count: usize, at: Moment) -> GroupReading {
    let member = |number: usize| Member {
        pod: format!("vocals-processor-{number}").as_str().into(),
        work: MemberWork::Partitions(vec![]),
    };
    GroupReading::Stable {
        at,
        members: (0..count).map(member).collect(),
    }
}

/// A reading of partitions from 0 that each have the messages 2 to 9, and these committed offsets.
pub(in crate::reconcile) fn polled(
    offsets: &GroupOffsets,
    plan: &RolePlan,
    topic: TopicIdentity,
    committed: &[Option<i64>],
    group: GroupReading,
    at: Moment,
) -> Polled<RoleKey> {
    let settings = ClusterSettings {
        client_id: "tests".to_owned(),
        bootstrap_servers: "k:1".to_owned(),
        tls: None,
        sasl: None,
    };
    let partitions = committed
        .iter()
        .zip(0..)
        .map(|(committed, partition)| PartitionOffsets {
            partition,
            start: Ok(2),
            end: Ok(10),
            committed: Ok(*committed),
        });
    let found = TopicOffsets {
        identity: topic.clone(),
        partitions: partitions.collect(),
    };
    let adoption = offsets.adoption_of(plan);
    Polled {
        key: RoleKey {
            pool: Arc::new(crate::plan::PoolId {
                namespace: "media".to_owned(),
                name: "vocals".to_owned(),
            }),
            role: Role::Processor,
        },
        cluster: Arc::new(Cluster::new(&settings).unwrap()),
        query: Query {
            topic: plan.topic.as_str().into(),
            group: plan.group.as_str().into(),
            adoption: adoption.clone(),
            start_deadline: None,
        },
        at,
        result: QueryResult {
            topic: Some(Topic {
                identity: topic,
                partitions: found
                    .partitions
                    .iter()
                    .map(|partition| partition.partition)
                    .collect(),
            }),
            lag: compute_lag(&found, &adoption),
            offsets: Some(found),
            error: None,
            holds: Vec::new(),
            finished: Vec::new(),
            queue: None,
        },
        group,
    }
}

/// A group, read every second.
struct GroupFixture {
    plan: PoolPlan,
    offsets: GroupOffsets,
    topic: TopicIdentity,
    now: Moment,
}

impl GroupFixture {
    fn new(adoption: Option<&OffsetsStatus>) -> Self {
        let mut offsets = GroupOffsets::new(adoption, Moment::default());
        offsets.random_part = 0.5;
        Self {
            plan: plan(""),
            offsets,
            topic: identity("one", "topic"),
            now: Moment::default(),
        }
    }

    fn plan(&self) -> &RolePlan {
        self.plan.role(Role::Processor)
    }

    fn read_with(&mut self, committed: &[Option<i64>], group: GroupReading) -> LagWithAnomalies {
        self.now = self.now + Duration::from_secs(1);
        let plan = self.plan.clone();
        let plan = plan.role(Role::Processor);
        let polled = polled(
            &self.offsets,
            plan,
            self.topic.clone(),
            committed,
            group,
            self.now,
        );
        self.offsets.read(&polled, plan)
    }

    fn read(&mut self, committed: &[Option<i64>], count: usize) -> LagWithAnomalies {
        let group = members(count, self.now);
        self.read_with(committed, group)
    }

    /// Enough equal readings for five seconds.
    fn read_steadily(&mut self, committed: &[Option<i64>], count: usize) -> LagWithAnomalies {
        for _ in 0..5 {
            self.read(committed, count);
        }
        self.read(committed, count)
    }

    fn record_committed(&mut self, replicas: u32) {
        let workload = Workload {
            replicas,
            ..Workload::default()
        };
        let plan = self.plan.clone();
        self.offsets
            .record_committed(plan.role(Role::Processor), &workload);
    }

    fn recorded(&self) -> &[i64] {
        &self.offsets.adoption.as_ref().unwrap().committed
    }

    fn recommit(&self) -> Option<Vec<i32>> {
        self.offsets.recommit(self.plan(), RECOMMIT_AFTER, self.now)
    }

    fn adopt(&self) -> Option<Adopt> {
        self.offsets.adopt(self.plan())
    }
}

fn messages(lag: &LagWithAnomalies) -> u128 {
    match &lag.lag {
        Lag::Known(work) => work.messages(),
        lag => panic!("{lag:?}"),
    }
}

#[test]
fn offsets_are_committed_again_while_the_group_has_no_members_and_soon_after_the_last_one_left() {
    let mut fixture = GroupFixture::new(Some(&status("one", "topic", &[])));
    fixture.read(&[Some(4), None], 0);
    assert_eq!(fixture.recommit(), None);
    // Half of ten minutes is this group's random part.
    fixture.now = fixture.now + Duration::from_secs(300);
    fixture.read(&[Some(4), None], 0);
    assert_eq!(fixture.recommit(), Some(vec![0]));
    fixture.offsets.recommitted(fixture.now);
    assert_eq!(fixture.recommit(), None);

    // A worker commits without a retention time, so its last offset is committed again long before `RECOMMIT_AFTER`.
    fixture.read(&[Some(5), None], 1);
    fixture.now = fixture.now + Duration::from_secs(300);
    assert_eq!(fixture.recommit(), None, "it has a member");
    fixture.read(&[Some(5), None], 0);
    assert_eq!(fixture.recommit(), Some(vec![0]));
    fixture.offsets.recommitted(fixture.now);
    fixture.now = fixture.now + RECOMMIT_AFTER;
    assert_eq!(fixture.recommit(), Some(vec![0]));
}

#[test]
fn nothing_is_committed_again_while_members_are_unknown() {
    let mut fixture = GroupFixture::new(Some(&status("one", "topic", &[])));
    fixture.now = fixture.now + RECOMMIT_AFTER;
    fixture.read_with(&[Some(4)], GroupReading::NotRead);
    assert_eq!(fixture.recommit(), None);
    let (at, why) = (fixture.now, "unreachable".into());
    fixture.read_with(&[Some(4)], GroupReading::Unknown { at, why });
    assert_eq!(fixture.recommit(), None);
}

#[test]
fn a_group_that_lost_all_its_offsets_gets_the_recorded_ones_before_a_worker_starts() {
    let mut fixture = GroupFixture::new(Some(&status("one", "topic", &[9, 10])));
    let found = fixture.read(&[None, None], 0);
    assert_eq!(messages(&found), 1, "and not everything that the topic retains");
    assert!(fixture.offsets.is_unready(fixture.plan()));
    assert_eq!(
        fixture.offsets.restore(),
        None,
        "a coordinator may have forgotten for a moment"
    );
    fixture.read_steadily(&[None, None], 0);
    assert_eq!(fixture.offsets.restore(), Some(commits(&[(0, 9), (1, 10)])));
    assert_eq!((fixture.recommit(), fixture.adopt()), (None, None));

    fixture.offsets.restored(fixture.now);
    assert_eq!(fixture.offsets.restore(), None);
    let found = fixture.read(&[Some(9), Some(10)], 0);
    assert_eq!(messages(&found), 1);
    assert!(!fixture.offsets.is_unready(fixture.plan()));
}

#[test]
fn recorded_offsets_are_used_only_for_a_group_that_lost_all_its_offsets() {
    let recorded = status("one", "topic", &[9, 10]);
    let of_another_group = OffsetsStatus {
        consumer_group: "others".to_owned(),
        ..recorded.clone()
    };
    let all: &[Option<i64>] = &[None, None];
    for (adoption, committed, count, expected) in [
        // Some are left: the others are new partitions, or were deleted by a user.
        (recorded.clone(), &[Some(9), None][..], 0, 9),
        // Members continue from their own offsets.
        (recorded, all, 1, 16),
        // The cluster or the topic is unknown or another one; at a first adoption, `latest` skips existing messages.
        (status("", "topic", &[9, 10]), all, 0, 16),
        (status("one", "", &[9, 10]), all, 0, 16),
        (status("one", "other", &[9, 10]), all, 0, 16),
        (status("two", "topic", &[9, 10]), all, 0, 0),
        (of_another_group, all, 0, 0),
    ] {
        let mut fixture = GroupFixture::new(Some(&adoption));
        fixture.read(committed, count);
        let found = fixture.read(committed, count);
        assert_eq!(messages(&found), expected, "{adoption:?}");
    }
}

#[test]
fn a_group_is_adopted_without_commits_only_where_it_has_members() {
    let mut fixture = GroupFixture::new(None);
    fixture.read_steadily(&[None, Some(7)], 1);
    assert_eq!(fixture.adopt().unwrap().commits, commits(&[]));
    let rebalancing = GroupReading::Rebalancing { at: fixture.now };
    fixture.read_with(&[None, Some(7)], rebalancing);
    assert_eq!(fixture.adopt().unwrap().commits, commits(&[]));
    // Terminating pods do not matter: they may belong to another group.
    fixture.read_steadily(&[None, Some(7)], 0);
    let adopt = fixture.adopt().unwrap();
    assert_eq!(
        (adopt.commits, adopt.topic),
        (commits(&[(0, 10)]), identity("one", "topic"))
    );

    let (at, why) = (fixture.now, "unreachable".into());
    fixture.read_with(&[None, Some(7)], GroupReading::Unknown { at, why });
    assert_eq!(fixture.adopt(), None);
}

#[test]
fn offsets_are_initialized_only_after_readings_that_agree_for_five_seconds() {
    let mut fixture = GroupFixture::new(None);
    for _ in 0..5 {
        fixture.read(&[None, None], 0);
        assert_eq!(fixture.adopt(), None);
    }
    // Time alone confirms nothing.
    fixture.now = fixture.now + Duration::from_secs(60);
    assert_eq!(fixture.adopt(), None);
    fixture.read(&[None, Some(3)], 0);
    assert_eq!(fixture.adopt(), None);
    fixture.read_steadily(&[None, Some(3)], 0);
    assert_eq!(fixture.adopt().unwrap().commits, commits(&[(0, 10)]));
}

#[test]
fn in_another_cluster_offsets_are_initialized_and_migrated_ones_are_kept() {
    let mut fixture = GroupFixture::new(Some(&status("one", "topic", &[4, 4])));
    fixture.topic = identity("two", "copy");
    let found = fixture.read_steadily(&[Some(6), None], 0);
    assert_eq!((messages(&found), &found.anomalies[..]), (4, &[][..]));
    assert!(fixture.offsets.is_unready(fixture.plan()));
    assert_eq!(fixture.adopt().unwrap().commits, commits(&[(1, 10)]));
    // Recreated in the cluster that is known: what is committed belongs to the old topic.
    let mut fixture = GroupFixture::new(Some(&status("one", "old", &[4, 4])));
    fixture.read_steadily(&[Some(6), None], 0);
    assert_eq!(fixture.adopt().unwrap().commits, commits(&[(0, 2), (1, 2)]));
}

#[test]
fn offsets_beyond_the_end_of_a_topic_without_an_id_are_replaced_before_a_worker_starts() {
    let mut fixture = GroupFixture::new(Some(&status("one", "", &[])));
    fixture.topic = identity("one", "");
    let committed = [Some(20), Some(7)];
    let found = fixture.read(&committed, 0);
    assert_eq!(messages(&found), 8 + 3, "nothing of the new topic is skipped");
    assert!(fixture.offsets.is_unready(fixture.plan()));
    let replace = |fixture: &GroupFixture| fixture.offsets.replace(fixture.plan());
    assert_eq!(replace(&fixture), None, "a former leader may have answered");
    fixture.read_steadily(&committed, 0);
    assert_eq!(replace(&fixture), Some(commits(&[(0, 2)])));
    fixture.offsets.restored(fixture.now);
    assert_eq!(replace(&fixture), None);
    fixture.read(&[Some(2), Some(7)], 0);
    assert!(!fixture.offsets.is_unready(fixture.plan()));

    // Members continue by themselves.
    fixture.read_steadily(&committed, 1);
    assert!(!fixture.offsets.is_unready(fixture.plan()));
    assert_eq!(replace(&fixture), None);
    // The same topic by its id: it lost messages, or a user committed that.
    let mut fixture = GroupFixture::new(Some(&status("one", "topic", &[])));
    fixture.read_steadily(&committed, 0);
    assert!(!fixture.offsets.is_unready(fixture.plan()));
    assert_eq!(replace(&fixture), None);
}

#[test]
fn an_adoption_of_an_earlier_version_learns_its_ids_and_is_not_repeated() {
    let mut before = status("", "AAAAAAAAAAAAAAAAAAAAAA", &[]);
    before.consumer_group.clear();
    let mut fixture = GroupFixture::new(Some(&before));
    fixture.read_steadily(&[Some(6), None], 0);
    assert_eq!(fixture.adopt(), None);
    assert_eq!(fixture.offsets.adoption(), Some(&status("one", "topic", &[])));
    assert!(
        fixture.offsets.is_written(Some(&before)),
        "workers may start before the status has the ids"
    );
    assert!(!fixture.offsets.is_written(None));
}

#[test]
fn offsets_are_recorded_at_zero_replicas_and_a_single_lost_offset_is_kept() {
    let mut fixture = GroupFixture::new(Some(&status("one", "topic", &[])));
    fixture.read(&[Some(4), Some(5)], 1);
    fixture.record_committed(0);
    fixture.read(&[Some(4), Some(5)], 0);
    fixture.record_committed(1);
    assert!(fixture.recorded().is_empty());
    fixture.record_committed(0);
    assert_eq!(fixture.recorded(), [4, 5]);
    // Brokers lose offsets one after another.
    fixture.read(&[None, Some(5)], 0);
    fixture.record_committed(0);
    fixture.read(&[None, None], 0);
    fixture.record_committed(0);
    assert_eq!(fixture.recorded(), [4, 5]);
    // A user rewound the group.
    fixture.read(&[Some(2), Some(3)], 0);
    fixture.record_committed(0);
    assert_eq!(fixture.recorded(), [2, 3]);
    fixture.topic = identity("two", "topic");
    fixture.read(&[Some(9), Some(9)], 0);
    fixture.record_committed(0);
    assert_eq!(fixture.recorded(), [2, 3], "of another cluster");
}

#[test]
fn a_pool_uses_a_group_once_its_own_credentials_have_read_it() {
    let mut fixture = GroupFixture::new(None);
    let group_use =
        |fixture: &GroupFixture| fixture.offsets.group_use(fixture.plan(), GroupProof::Credentials);
    assert_eq!(group_use(&fixture), None);
    fixture.read(&[None], 0);
    let seen = GroupUse {
        cluster_id: "one".into(),
        is_adopted: false,
        is_proven: true,
    };
    assert_eq!(group_use(&fixture), Some(seen));
    // The status of an earlier process counts.
    let adopted = GroupUse {
        cluster_id: "one".into(),
        is_adopted: true,
        is_proven: true,
    };
    assert_eq!(
        group_use(&GroupFixture::new(Some(&status("one", "topic", &[])))),
        Some(adopted)
    );
    // Credentials without rights on the group prove nothing.
    let mut fixture = GroupFixture::new(None);
    let plan = fixture.plan.clone();
    let plan = plan.role(Role::Processor);
    let mut refused = polled(
        &fixture.offsets,
        plan,
        fixture.topic.clone(),
        &[None],
        members(0, fixture.now),
        fixture.now,
    );
    for partition in &mut refused.result.offsets.as_mut().unwrap().partitions {
        partition.committed = Err(ReadError::new("not authorized"));
    }
    refused.result.lag.lag = Lag::Partial {
        known: LagByPartition::default(),
        missing: 1,
        why: "not authorized".into(),
    };
    fixture.offsets.read(&refused, plan);
    assert_eq!(group_use(&fixture), None);
}
