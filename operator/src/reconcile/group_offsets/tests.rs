//! Readings of a scripted group, and what is committed after each.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::apply::offsets::tests::commits;
use crate::crd::from_yaml;
use crate::decide::{Holds, Member, Work};
use crate::kafka::{Cluster, ClusterSettings, Topic, Unread};
use crate::observe::{Found, PartitionOffsets, Query};
use crate::plan::{PoolPlan, Role};

const KEEP_AFTER: Duration = Duration::from_secs(3_600);

pub(in crate::reconcile) fn plan(processor: &str) -> PoolPlan {
    let yaml = format!(
        "
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {{name: vocals, namespace: media, uid: pool}}
spec:
  kafka: {{bootstrapServers: 'k:1'}}
  storage: {{s3: {{bucket: stems}}, work: {{s3Prefix: staging/}}}}
  processor: {{group: separators, autoOffsetReset: latest, {processor}}}
"
    );
    PoolPlan::of(&from_yaml(&yaml).unwrap()).unwrap()
}

pub(in crate::reconcile) fn identity(cluster: &str, topic: &str) -> TopicIdentity {
    TopicIdentity {
        cluster_id: known(cluster),
        topic_id: known(topic),
    }
}

pub(in crate::reconcile) fn status(cluster: &str, topic: &str, offsets: &[i64]) -> AdoptionStatus {
    AdoptionStatus {
        topic_id: topic.to_owned(),
        cluster_id: cluster.to_owned(),
        consumer_group: "separators".to_owned(),
        offsets: offsets.to_vec(),
        partitions: 2,
        policy: "latest".to_owned(),
        at: Time(Timestamp::UNIX_EPOCH),
    }
}

pub(in crate::reconcile) fn members(count: usize, at: Moment) -> GroupReading {
    let member = |number: usize| Member {
        pod: format!("vocals-processor-{number}").as_str().into(),
        holds: Holds::Partitions(vec![]),
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
        },
        at,
        found: Found {
            topic: Some(Topic {
                identity: topic,
                partitions: found
                    .partitions
                    .iter()
                    .map(|partition| partition.partition)
                    .collect(),
            }),
            lag: lag_of(&found, &adoption),
            offsets: Some(found),
            unread: None,
            holds: Vec::new(),
        },
        group,
    }
}

/// A group, read every second.
struct Scene {
    plan: PoolPlan,
    offsets: GroupOffsets,
    topic: TopicIdentity,
    now: Moment,
}

impl Scene {
    fn new(adoption: Option<&AdoptionStatus>) -> Self {
        let mut offsets = GroupOffsets::new(adoption, Moment::default());
        offsets.share = 0.5;
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

    fn read_with(&mut self, committed: &[Option<i64>], group: GroupReading) -> LagFound {
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

    fn read(&mut self, committed: &[Option<i64>], count: usize) -> LagFound {
        let group = members(count, self.now);
        self.read_with(committed, group)
    }

    /// So many readings that say the same.
    fn read_steadily(&mut self, committed: &[Option<i64>], count: usize) -> LagFound {
        for _ in 0..5 {
            self.read(committed, count);
        }
        self.read(committed, count)
    }

    fn remember(&mut self, replicas: u32) {
        let workload = Workload {
            replicas,
            ..Workload::default()
        };
        let plan = self.plan.clone();
        self.offsets.remember(plan.role(Role::Processor), &workload);
    }

    fn remembered(&self) -> &[i64] {
        &self.offsets.adoption.as_ref().unwrap().offsets
    }

    fn keep(&self) -> Option<Vec<i32>> {
        self.offsets.keep(self.plan(), KEEP_AFTER, self.now)
    }

    fn adopt(&self) -> Option<Adopt> {
        self.offsets.adopt(self.plan())
    }
}

fn messages(lag: &LagFound) -> u128 {
    match &lag.lag {
        Lag::Known(work) => work.messages(),
        lag => panic!("{lag:?}"),
    }
}

#[test]
fn offsets_are_kept_while_the_group_has_no_members_and_soon_after_the_last_one_left() {
    let mut scene = Scene::new(Some(&status("one", "topic", &[])));
    scene.read(&[Some(4), None], 0);
    assert_eq!(scene.keep(), None);
    // Half of ten minutes, this group's own part.
    scene.now = scene.now + Duration::from_secs(300);
    scene.read(&[Some(4), None], 0);
    assert_eq!(scene.keep(), Some(vec![0]));
    scene.offsets.kept(scene.now);
    assert_eq!(scene.keep(), None);

    // A worker commits without a retention time: what it leaves is committed again long before the next turn.
    scene.read(&[Some(5), None], 1);
    scene.now = scene.now + Duration::from_secs(300);
    assert_eq!(scene.keep(), None, "it has a member");
    scene.read(&[Some(5), None], 0);
    assert_eq!(scene.keep(), Some(vec![0]));
    scene.offsets.kept(scene.now);
    scene.now = scene.now + KEEP_AFTER;
    assert_eq!(scene.keep(), Some(vec![0]));
}

#[test]
fn nothing_is_kept_while_members_are_unknown() {
    let mut scene = Scene::new(Some(&status("one", "topic", &[])));
    scene.now = scene.now + KEEP_AFTER;
    scene.read_with(&[Some(4)], GroupReading::NotRead);
    assert_eq!(scene.keep(), None);
    let (at, why) = (scene.now, "away".into());
    scene.read_with(&[Some(4)], GroupReading::Unknown { at, why });
    assert_eq!(scene.keep(), None);
}

#[test]
fn a_group_that_lost_all_its_offsets_gets_the_remembered_ones_and_no_worker_before() {
    let mut scene = Scene::new(Some(&status("one", "topic", &[9, 10])));
    let found = scene.read(&[None, None], 0);
    assert_eq!(messages(&found), 1, "and not everything that the topic retains");
    assert!(scene.offsets.is_unready(scene.plan()));
    assert_eq!(
        scene.offsets.restore(),
        None,
        "a coordinator may have forgotten for a moment"
    );
    scene.read_steadily(&[None, None], 0);
    assert_eq!(scene.offsets.restore(), Some(commits(&[(0, 9), (1, 10)])));
    assert_eq!((scene.keep(), scene.adopt()), (None, None));

    scene.offsets.restored(scene.now);
    assert_eq!(scene.offsets.restore(), None);
    let found = scene.read(&[Some(9), Some(10)], 0);
    assert_eq!(messages(&found), 1);
    assert!(!scene.offsets.is_unready(scene.plan()));
}

#[test]
fn remembered_offsets_are_used_for_nothing_else() {
    let remembered = status("one", "topic", &[9, 10]);
    let of_another_group = AdoptionStatus {
        consumer_group: "others".to_owned(),
        ..remembered.clone()
    };
    let all: &[Option<i64>] = &[None, None];
    for (adoption, committed, count, expected) in [
        // Some are left: the others are new partitions, or were deleted by a user.
        (remembered.clone(), &[Some(9), None][..], 0, 9),
        // Members go on from what they know.
        (remembered, all, 1, 16),
        // The cluster or the topic is unknown, or another one; where that is a first adoption, `latest` skips.
        (status("", "topic", &[9, 10]), all, 0, 16),
        (status("one", "", &[9, 10]), all, 0, 16),
        (status("one", "other", &[9, 10]), all, 0, 16),
        (status("two", "topic", &[9, 10]), all, 0, 0),
        (of_another_group, all, 0, 0),
    ] {
        let mut scene = Scene::new(Some(&adoption));
        scene.read(committed, count);
        let found = scene.read(committed, count);
        assert_eq!(messages(&found), expected, "{adoption:?}");
    }
}

#[test]
fn a_group_is_adopted_without_commits_only_where_it_has_members() {
    let mut scene = Scene::new(None);
    scene.read_steadily(&[None, Some(7)], 1);
    assert_eq!(scene.adopt().unwrap().commits, commits(&[]));
    let rebalancing = GroupReading::Rebalancing { at: scene.now };
    scene.read_with(&[None, Some(7)], rebalancing);
    assert_eq!(scene.adopt().unwrap().commits, commits(&[]));
    // Whatever pods end meanwhile: they belong to another group.
    scene.read_steadily(&[None, Some(7)], 0);
    let adopt = scene.adopt().unwrap();
    assert_eq!(
        (adopt.commits, adopt.topic),
        (commits(&[(0, 10)]), identity("one", "topic"))
    );

    let (at, why) = (scene.now, "away".into());
    scene.read_with(&[None, Some(7)], GroupReading::Unknown { at, why });
    assert_eq!(scene.adopt(), None);
}

#[test]
fn offsets_are_initialized_only_after_readings_that_agree_for_five_seconds() {
    let mut scene = Scene::new(None);
    for _ in 0..5 {
        scene.read(&[None, None], 0);
        assert_eq!(scene.adopt(), None);
    }
    // Time alone confirms nothing.
    scene.now = scene.now + Duration::from_secs(60);
    assert_eq!(scene.adopt(), None);
    scene.read(&[None, Some(3)], 0);
    assert_eq!(scene.adopt(), None);
    scene.read_steadily(&[None, Some(3)], 0);
    assert_eq!(scene.adopt().unwrap().commits, commits(&[(0, 10)]));
}

#[test]
fn another_cluster_is_adopted_for_the_first_time_and_keeps_offsets_that_were_carried_over() {
    let mut scene = Scene::new(Some(&status("one", "topic", &[4, 4])));
    scene.topic = identity("two", "copy");
    let found = scene.read_steadily(&[Some(6), None], 0);
    assert_eq!((messages(&found), &found.flags[..]), (4, &[][..]));
    assert!(scene.offsets.is_unready(scene.plan()));
    assert_eq!(scene.adopt().unwrap().commits, commits(&[(1, 10)]));
    // Recreated in the cluster that is known: what is committed belongs to the old topic.
    let mut scene = Scene::new(Some(&status("one", "old", &[4, 4])));
    scene.read_steadily(&[Some(6), None], 0);
    assert_eq!(scene.adopt().unwrap().commits, commits(&[(0, 2), (1, 2)]));
}

#[test]
fn an_adoption_of_an_earlier_version_learns_its_ids_and_is_not_repeated() {
    let mut before = status("", "AAAAAAAAAAAAAAAAAAAAAA", &[]);
    before.consumer_group.clear();
    let mut scene = Scene::new(Some(&before));
    scene.read_steadily(&[Some(6), None], 0);
    assert_eq!(scene.adopt(), None);
    assert_eq!(scene.offsets.adoption(), Some(&status("one", "topic", &[])));
    assert!(
        scene.offsets.is_written(Some(&before)),
        "workers need not wait for it"
    );
    assert!(!scene.offsets.is_written(None));
}

#[test]
fn offsets_are_remembered_at_zero_replicas_and_one_that_is_lost_alone_stays() {
    let mut scene = Scene::new(Some(&status("one", "topic", &[])));
    scene.read(&[Some(4), Some(5)], 1);
    scene.remember(0);
    scene.read(&[Some(4), Some(5)], 0);
    scene.remember(1);
    assert!(scene.remembered().is_empty());
    scene.remember(0);
    assert_eq!(scene.remembered(), [4, 5]);
    // Brokers lose offsets one after the other.
    scene.read(&[None, Some(5)], 0);
    scene.remember(0);
    scene.read(&[None, None], 0);
    scene.remember(0);
    assert_eq!(scene.remembered(), [4, 5]);
    // A user rewound the group.
    scene.read(&[Some(2), Some(3)], 0);
    scene.remember(0);
    assert_eq!(scene.remembered(), [2, 3]);
    scene.topic = identity("two", "topic");
    scene.read(&[Some(9), Some(9)], 0);
    scene.remember(0);
    assert_eq!(scene.remembered(), [2, 3], "of another cluster");
}

#[test]
fn a_pool_uses_a_group_once_its_own_credentials_have_read_it() {
    let mut scene = Scene::new(None);
    let group_use = |scene: &Scene| scene.offsets.group_use(scene.plan());
    assert_eq!(group_use(&scene), None);
    scene.read(&[None], 0);
    let seen = GroupUse {
        cluster_id: "one".into(),
        is_adopted: false,
    };
    assert_eq!(group_use(&scene), Some(seen));
    // What the status says of an earlier process counts.
    let adopted = GroupUse {
        cluster_id: "one".into(),
        is_adopted: true,
    };
    assert_eq!(
        group_use(&Scene::new(Some(&status("one", "topic", &[])))),
        Some(adopted)
    );
    // Credentials without rights on the group prove nothing.
    let mut scene = Scene::new(None);
    let plan = scene.plan.clone();
    let plan = plan.role(Role::Processor);
    let mut refused = polled(
        &scene.offsets,
        plan,
        scene.topic.clone(),
        &[None],
        members(0, scene.now),
        scene.now,
    );
    for partition in &mut refused.found.offsets.as_mut().unwrap().partitions {
        partition.committed = Err(Unread::new("not allowed"));
    }
    refused.found.lag.lag = Lag::Partial {
        known: Work::default(),
        missing: 1,
        why: "not allowed".into(),
    };
    scene.offsets.read(&refused, plan);
    assert_eq!(group_use(&scene), None);
}
