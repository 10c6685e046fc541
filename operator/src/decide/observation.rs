//! Input of a decision: lag per partition, members of the group, pods. Unknown is a value here and never zero.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A point in time: milliseconds since the start of the process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// Time since an earlier moment; zero since a later one.
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

/// Input of a decision about one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Lag of the topic.
    pub lag: LagReading,
    /// Members of the group that are workers of this role, and their partitions.
    pub group: GroupReading,
    /// Replicas and pods of the Deployment.
    pub workload: Workload,
    /// Another pool or consumer that uses the same group and topic.
    pub conflict: Option<Arc<str>>,
    /// The dependency that refuses a worker of this role, with its code, as the worker reports it.
    pub refusal: Option<Arc<str>>,
    /// Expected times of start-up and tasks.
    pub estimates: Estimates,
    /// When the messages of the lag arrived, and which run; none if unknown: they count as queued since the reading.
    pub queue: Option<Queue>,
}

/// Expected times: learned, declared or the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimates {
    /// From a scale-up to the first task that the new worker begins, without the time in which no node has room for it.
    pub startup: Duration,
    /// The median time of a task.
    pub task: Duration,
    /// The time that all but a few tasks stay below: their 95th percentile.
    pub task_tail: Duration,
}

impl Default for Estimates {
    fn default() -> Self {
        Self {
            startup: Duration::from_secs(60),
            task: Duration::from_secs(30),
            task_tail: Duration::from_secs(90),
        }
    }
}

/// When messages arrived, and which run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    /// Partitions with lag; they ascend.
    pub partitions: Vec<PartitionQueue>,
}

impl Queue {
    /// When the oldest message arrived that is not known to run; none without one.
    pub fn oldest(&self) -> Option<Moment> {
        let of_partitions = self.partitions.iter().filter_map(|partition| {
            let first = partition.arrivals.first();
            let only_first_runs = partition.running.is_some() && matches!(first, Some((_, 1)));
            partition.arrivals.get(usize::from(only_first_runs))
        });
        of_partitions.map(|(at, _)| *at).min()
    }
}

/// The messages of one partition that are not yet committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionQueue {
    /// The partition's number.
    pub partition: i32,
    /// Times of arrival, oldest first, each with the number of messages that arrived then: the numbers add up to the
    /// partition's lag. A running message is the first one.
    pub arrivals: Vec<(Moment, u64)>,
    /// The running message's task; none if no message runs, or it is unknown.
    pub running: Option<RunningTask>,
}

/// A task that a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningTask {
    /// When it began.
    pub since: Moment,
    /// Its progress, 0 to 100; none if the worker does not report it.
    pub percent: Option<u8>,
}

/// A reading of lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LagReading {
    /// Time of the last attempt.
    pub at: Moment,
    /// Its result.
    pub lag: Lag,
}

/// Lag, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lag {
    /// All partitions were read.
    Known(LagByPartition),
    /// Some partitions were read: a lower bound.
    Partial {
        /// Lag of the partitions that were read.
        known: LagByPartition,
        /// Number of partitions that could not be read.
        missing: u32,
        /// Why they could not be read.
        why: Arc<str>,
    },
    /// No partition was read.
    Unknown {
        /// Why it could not be read.
        why: Arc<str>,
    },
}

/// Messages not yet committed, per partition, the running ones included; partitions ascend. Sums are computed once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LagByPartition {
    partitions: Vec<PartitionLag>,
    messages: u128,
    with_messages: u32,
}

/// Lag of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionLag {
    /// The partition's number.
    pub partition: i32,
    /// Messages not yet committed.
    pub messages: u64,
}

impl LagByPartition {
    /// Lag of these partitions. Duplicates are removed.
    pub fn new(mut partitions: Vec<PartitionLag>) -> Self {
        partitions.sort_unstable();
        partitions.dedup_by_key(|lag| lag.partition);
        let with_messages = partitions.iter().filter(|lag| lag.messages > 0).count();
        Self {
            // A sum of at most 2^31 partitions of 64 bits fits.
            messages: partitions.iter().map(|lag| u128::from(lag.messages)).sum(),
            with_messages: u32::try_from(with_messages).unwrap_or(u32::MAX),
            partitions,
        }
    }

    /// Lag of the partitions 0, 1, 2 …
    pub fn from_messages(messages: impl IntoIterator<Item = u64>) -> Self {
        let numbered = (0..).zip(messages);
        Self::new(
            numbered
                .map(|(partition, messages)| PartitionLag { partition, messages })
                .collect(),
        )
    }

    /// Number of partitions that were read.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Messages of all partitions.
    pub fn messages(&self) -> u128 {
        self.messages
    }

    /// Partitions with at least one message.
    pub fn partitions_with_work(&self) -> u32 {
        self.with_messages
    }

    /// Messages of one partition; none if it was not read.
    pub fn messages_in(&self, partition: i32) -> Option<u64> {
        // Partitions are numbered from 0 without gaps, so that the index nearly always finds it.
        let guess = usize::try_from(partition)
            .ok()
            .and_then(|index| self.partitions.get(index));
        if let Some(lag) = guess.filter(|lag| lag.partition == partition) {
            return Some(lag.messages);
        }
        let found = self
            .partitions
            .binary_search_by_key(&partition, |lag| lag.partition);
        found.ok().map(|index| self.partitions[index].messages)
    }
}

/// A reading of the consumer group's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupReading {
    /// Members were not requested.
    NotRead,
    /// The request failed.
    Unknown {
        /// Time of the attempt.
        at: Moment,
        /// Why it failed.
        why: Arc<str>,
    },
    /// The group is rebalancing: its assignment is not reported.
    Rebalancing {
        /// Time of the reading.
        at: Moment,
    },
    /// The assignment is complete, or the work of each member is known otherwise.
    Stable {
        /// Time of the reading.
        at: Moment,
        /// The members.
        members: Vec<Member>,
    },
}

/// A member of the consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its pod's name, from its client id.
    pub pod: PodName,
    /// Its partitions or task.
    pub work: MemberWork,
}

/// Partitions or task of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberWork {
    /// Its assigned partitions; it works on one of those with messages.
    Partitions(Vec<i32>),
    /// It reports a task.
    Task,
    /// It reports no task.
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
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Deployment and pods of one role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// The Deployment's `replicas`; 0 if there is no Deployment yet.
    pub replicas: u32,
    /// The pods of its ReplicaSets, draining ones included.
    pub pods: Vec<Pod>,
    /// The Deployment's status; none if there is no Deployment controller, as in simulations, or it has not acted yet.
    pub status: Option<PodStatus>,
}

/// Numbers of pods in a Deployment's status. Terminating pods are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodStatus {
    /// Whether the controller has observed the newest spec; otherwise the numbers describe an older one.
    pub observed: bool,
    /// Pods of all ReplicaSets.
    pub replicas: u32,
    /// Pods of the newest ReplicaSet.
    pub updated: u32,
}

impl Workload {
    /// Pods that are not terminating.
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

    /// Terminating pods that may still hold a task. Pods whose deletion is overdue count only while they are members of
    /// the group, or while the members are unknown.
    pub fn draining(&self, group: &GroupReading) -> u32 {
        let counts = |pod: &&Pod| match pod.state {
            PodState::Draining => true,
            PodState::Overdue => match group {
                GroupReading::Stable { members, .. } => members.iter().any(|member| member.pod == pod.name),
                _ => true,
            },
            PodState::Unschedulable | PodState::NotReady | PodState::Ready => false,
        };
        u32::try_from(self.pods.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: PodName,
    /// State.
    pub state: PodState,
    /// Whether it has our deletion-cost annotation.
    pub cost_annotation: CostAnnotation,
    /// Name of its ReplicaSet.
    pub replica_set: Arc<str>,
    /// When it was created; none if unknown.
    pub created: Option<Moment>,
}

/// State of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodState {
    /// No node has room for it.
    Unschedulable,
    /// Not ready.
    NotReady,
    /// Ready.
    Ready,
    /// Terminating; it finishes its task.
    Draining,
    /// Terminating, and its grace period has ended: its node may be dead.
    Overdue,
}

impl PodState {
    /// Whether the pod is not terminating.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Draining | Self::Overdue)
    }
}

/// Whether a pod has our deletion-cost annotation, so that Kubernetes deletes it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CostAnnotation {
    /// Annotated.
    Present,
    /// Not annotated.
    #[default]
    Absent,
}
