//! What was seen: work per partition, members of the group, pods. Unknown is a value here and never zero.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A point in time: milliseconds since a start that all moments of one process share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// So many milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// Time since an earlier moment; none since a later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// All that a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Work that waits or runs.
    pub lag: LagReading,
    /// Members of the group that are workers of this role, and what each works on.
    pub group: GroupReading,
    /// What the cluster runs.
    pub workload: Workload,
    /// Somebody else who takes from the same group and topic.
    pub conflict: Option<Arc<str>>,
    /// A dependency that refuses a worker of this role, as the worker reports it: which one, with its code.
    pub held: Option<Arc<str>>,
}

/// A reading of lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LagReading {
    /// When it was read, or tried last.
    pub at: Moment,
    /// What was read.
    pub lag: Lag,
}

/// Lag, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lag {
    /// Of every partition.
    Known(Work),
    /// Of some partitions: at least this much.
    Partial {
        /// What could be read.
        known: Work,
        /// How many partitions could not.
        missing: u32,
        /// Why not.
        why: Arc<str>,
    },
    /// Of none.
    Unknown {
        /// Why not.
        why: Arc<str>,
    },
}

/// Messages not yet committed, per partition, the running ones included; partitions ascend. Sums are made once, with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Work {
    partitions: Vec<PartitionWork>,
    messages: u128,
    with_work: u32,
}

/// A partition's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionWork {
    /// The partition's number.
    pub partition: i32,
    /// Messages not yet committed.
    pub messages: u64,
}

impl Work {
    /// Work of these partitions, each named once.
    pub fn new(mut partitions: Vec<PartitionWork>) -> Self {
        partitions.sort_unstable();
        partitions.dedup_by_key(|work| work.partition);
        let with_work = partitions.iter().filter(|work| work.messages > 0).count();
        Self {
            // A sum of at most 2^31 partitions of 64 bits fits.
            messages: partitions.iter().map(|work| u128::from(work.messages)).sum(),
            with_work: u32::try_from(with_work).unwrap_or(u32::MAX),
            partitions,
        }
    }

    /// Work of the partitions 0, 1, 2 …
    pub fn of(messages: impl IntoIterator<Item = u64>) -> Self {
        let numbered = (0..).zip(messages);
        Self::new(
            numbered
                .map(|(partition, messages)| PartitionWork { partition, messages })
                .collect(),
        )
    }

    /// How many partitions were read.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// All messages.
    pub fn messages(&self) -> u128 {
        self.messages
    }

    /// Partitions with at least one message.
    pub fn partitions_with_work(&self) -> u32 {
        self.with_work
    }

    /// Messages of one partition; none where it was not read.
    pub fn of_partition(&self, partition: i32) -> Option<u64> {
        // Partitions are numbered from 0 without gaps, so that the first look nearly always finds it.
        let guess = usize::try_from(partition)
            .ok()
            .and_then(|index| self.partitions.get(index));
        if let Some(work) = guess.filter(|work| work.partition == partition) {
            return Some(work.messages);
        }
        let found = self
            .partitions
            .binary_search_by_key(&partition, |work| work.partition);
        found.ok().map(|index| self.partitions[index].messages)
    }
}

/// A reading of the consumer group's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupReading {
    /// Nobody asked.
    NotRead,
    /// Nobody answered.
    Unknown {
        /// When it was tried.
        at: Moment,
        /// Why not.
        why: Arc<str>,
    },
    /// Partitions are being shared out: who holds what is not said.
    Rebalancing {
        /// When it was read.
        at: Moment,
    },
    /// Everybody knows what is theirs.
    Stable {
        /// When it was read.
        at: Moment,
        /// The members.
        members: Vec<Member>,
    },
}

/// A member of the consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it calls itself: its pod's name.
    pub pod: PodName,
    /// What it holds.
    pub holds: Holds,
}

/// What a member holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// These partitions; it works on one of those with work.
    Partitions(Vec<i32>),
    /// A task, as it says itself.
    Task,
    /// No task, as it says itself.
    NoTask,
}

/// A pod's name; cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName(Arc<str>);

impl From<&str> for PodName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl PodName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the cluster runs for one role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// Replicas that are asked for now; 0 where there is no Deployment yet.
    pub replicas: u32,
    /// The pods of its ReplicaSets, draining ones included.
    pub pods: Vec<Pod>,
    /// What the Deployment's status reports of its pods; none where no controller stands between replicas and pods, or it
    /// has not acted yet.
    pub status: Option<PodStatus>,
}

/// What a Deployment's status reports of its pods, those being deleted aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodStatus {
    /// Whether the controller has acted on the newest spec; else the numbers are of an older one.
    pub observed: bool,
    /// Pods of all ReplicaSets.
    pub replicas: u32,
    /// Pods of the newest ReplicaSet.
    pub updated: u32,
}

impl Workload {
    /// Pods that are not being deleted.
    pub fn live(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.state.is_live())
    }

    /// Whether pods of two ReplicaSets exist: the Deployment controller then splits a reduction of replicas over both,
    /// whatever the pods' deletion costs are.
    pub fn is_rolling(&self) -> bool {
        let mut sets = self.live().map(|pod| &pod.replica_set);
        let first = sets.next();
        let old_pods = |status: PodStatus| status.updated < status.replicas;
        sets.any(|set| Some(set) != first) || self.status.is_some_and(old_pods)
    }

    /// Pods being deleted that may still work or hold their place: those whose deletion is overdue count only while
    /// they are members of the group, or while the members are not known.
    pub fn draining(&self, group: &GroupReading) -> u32 {
        let holds_its_place = |pod: &&Pod| match pod.state {
            PodState::Draining => true,
            PodState::Overdue => match group {
                GroupReading::Stable { members, .. } => members.iter().any(|member| member.pod == pod.name),
                _ => true,
            },
            PodState::Unschedulable | PodState::NotReady | PodState::Ready => false,
        };
        u32::try_from(self.pods.iter().filter(holds_its_place).count()).unwrap_or(u32::MAX)
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// What it is doing.
    pub state: PodState,
    /// Whether it carries our mark of those that go first.
    pub marked: Marked,
    /// The name of its ReplicaSet.
    pub replica_set: Arc<str>,
}

/// What a pod is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodState {
    /// No node has room for it.
    Unschedulable,
    /// It is not ready, or not any more.
    NotReady,
    /// It works or could work.
    Ready,
    /// It is being deleted, and finishes what it has.
    Draining,
    /// It is being deleted, and should have been gone some time ago: its node may be dead.
    Overdue,
}

impl PodState {
    /// Whether the pod is not being deleted.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Draining | Self::Overdue)
    }
}

/// Whether a pod carries our mark of those that go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marked {
    /// It does.
    Yes,
    /// It does not.
    #[default]
    No,
}
