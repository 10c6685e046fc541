//! Reason of a decision: one word for machines, one sentence for people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::fleet::{Activity, PodCounts};
use super::policy::ReplicaLimits;

/// Why the desired replicas are what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The replicas the backlog needs.
    BacklogCovered,
    /// `minReplicas`, which is more than the backlog needs.
    AtMinimum,
    /// The backlog needs more than `maxReplicas`.
    LimitedByMaxReplicas,
    /// The backlog needs more replicas than partitions have messages.
    LimitedByPartitions,
    /// Lag is unknown.
    HeldUnknownLag,
    /// Lag of some partitions is unknown.
    HeldPartialLag,
    /// Fewer are enough, but which pods are idle is unknown.
    HeldUnknownMembers,
    /// Fewer are enough, but which pods exist is unknown.
    HeldUnknownPods,
    /// Fewer are enough, but pods of two ReplicaSets exist.
    HeldByRollout,
    /// Fewer are enough, but the surplus pods hold tasks.
    HeldBusy,
    /// More are needed, but draining workers count toward `maxReplicas`.
    HeldDraining,
    /// More are needed, but some pods are already unschedulable.
    HeldUnschedulable,
    /// More are needed, but a worker reports that a dependency refuses it.
    HeldByDependency,
    /// Fewer are enough, but not for the stabilization time yet.
    Stabilizing,
    /// The last change of replicas is too recent, or not yet complete.
    CoolingDown,
    /// The consumer group is rebalancing.
    Rebalancing,
    /// Idle pods become scale-down candidates and are checked again.
    SelectingIdlePods,
    /// Replicas are lowered by the idle pods.
    ScalingDown,
    /// The pool is paused.
    Paused,
    /// `DryRun`: decided and reported, not written.
    DryRun,
    /// Another pool or consumer uses the same group and topic.
    Conflict,
}

impl Reason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 21] = [
        Self::BacklogCovered,
        Self::AtMinimum,
        Self::LimitedByMaxReplicas,
        Self::LimitedByPartitions,
        Self::HeldUnknownLag,
        Self::HeldPartialLag,
        Self::HeldUnknownMembers,
        Self::HeldUnknownPods,
        Self::HeldByRollout,
        Self::HeldBusy,
        Self::HeldDraining,
        Self::HeldUnschedulable,
        Self::HeldByDependency,
        Self::Stabilizing,
        Self::CoolingDown,
        Self::Rebalancing,
        Self::SelectingIdlePods,
        Self::ScalingDown,
        Self::Paused,
        Self::DryRun,
        Self::Conflict,
    ];

    /// The word used in status, events, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::BacklogCovered => "BacklogCovered",
            Self::AtMinimum => "AtMinimum",
            Self::LimitedByMaxReplicas => "LimitedByMaxReplicas",
            Self::LimitedByPartitions => "LimitedByPartitions",
            Self::HeldUnknownLag => "HeldUnknownLag",
            Self::HeldPartialLag => "HeldPartialLag",
            Self::HeldUnknownMembers => "HeldUnknownMembers",
            Self::HeldUnknownPods => "HeldUnknownPods",
            Self::HeldByRollout => "HeldByRollout",
            Self::HeldBusy => "HeldBusy",
            Self::HeldDraining => "HeldDraining",
            Self::HeldUnschedulable => "HeldUnschedulable",
            Self::HeldByDependency => "HeldByDependency",
            Self::Stabilizing => "Stabilizing",
            Self::CoolingDown => "CoolingDown",
            Self::Rebalancing => "Rebalancing",
            Self::SelectingIdlePods => "SelectingIdlePods",
            Self::ScalingDown => "ScalingDown",
            Self::Paused => "Paused",
            Self::DryRun => "DryRun",
            Self::Conflict => "Conflict",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The limit that applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Limit {
    /// No limit applied.
    #[default]
    None,
    /// `minReplicas`.
    Min,
    /// `maxReplicas`.
    Max,
    /// Partitions with messages.
    Partitions,
    /// Workers that hold a task.
    Busy,
    /// Draining workers.
    Draining,
    /// No node has room.
    Unschedulable,
    /// A dependency that refuses a worker.
    Dependency,
    /// A rolling update.
    Rollout,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The word used in status and metrics.
        fmt::Debug::fmt(self, f)
    }
}

/// The numbers behind a decision. `Display` writes the message of the status; it changes only when a number does, not
/// with time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Reported reason.
    pub reason: Reason,
    /// Reason of the decision itself; differs from `reason` only with `DryRun`.
    pub decision_reason: Reason,
    /// The limit that applied.
    pub limit: Limit,
    /// Lag; none when unknown.
    pub lag: Option<LagSummary>,
    /// Replicas the backlog needs, without limits; none when unknown. With `StartDeadline`, one more than the limits
    /// allow if those are too few.
    pub need: Option<u32>,
    /// Replicas the backlog needs, within the limits; none when unknown.
    pub limited_need: Option<u32>,
    /// When queued messages begin; none without a deadline for that, or when lag is unknown.
    pub start: Option<StartForecast>,
    /// Replicas before the decision.
    pub current: u32,
    /// Replicas after it.
    pub desired: u32,
    /// Pods by state and activity.
    pub pods: PodCounts,
    /// `minReplicas` and `maxReplicas`.
    pub limits: ReplicaLimits,
    /// How long fewer replicas must be enough before a scale-down.
    pub stabilization: Duration,
    /// What could not be read, what is refused, or which other pool or consumer conflicts.
    pub why: Option<Arc<str>>,
}

/// Lag as a decision used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LagSummary {
    /// Messages not yet committed.
    pub messages: u128,
    /// Partitions with at least one such message.
    pub partitions_with_work: u32,
    /// Partitions that were read.
    pub partitions: u32,
    /// Partitions that could not be read.
    pub missing: u32,
}

/// When queued messages begin, with the target `StartDeadline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartForecast {
    /// Messages that no worker has begun.
    pub queued: u128,
    /// The number of workers that is assumed.
    pub replicas: u32,
    /// Expected time from the newest message's arrival until it begins, in steps of ten seconds; none if no message
    /// is queued, or no worker is assumed.
    pub wait: Option<Duration>,
    /// The deadline for it.
    pub deadline: Duration,
    /// Expected time until a new worker begins a message.
    pub startup: Duration,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.why.as_deref().unwrap_or("no reading yet");
        match self.reason {
            Reason::Conflict => {
                return write!(
                    f,
                    "{why}: {} until the conflict is resolved",
                    unchanged(self.current)
                );
            }
            Reason::Paused => {
                return write!(f, "scaling is paused: {}", unchanged(self.current));
            }
            Reason::DryRun => {
                write!(
                    f,
                    "dry run (desired {}, current {}, reason {}): ",
                    self.desired, self.current, self.decision_reason
                )?;
            }
            _ => {}
        }
        self.write_lag(f)?;
        self.write_consequence(f, why)
    }
}

impl Explanation {
    fn write_lag(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(lag), Some(need)) = (self.lag, self.need) else {
            return f.write_str("lag is unknown");
        };
        let at_least = if lag.missing > 0 { "at least " } else { "" };
        if lag.messages == 0 && lag.missing == 0 {
            return f.write_str("lag is 0");
        }
        let need = match self.start {
            Some(start) if need > start.replicas => format!("more than {}", replicas(start.replicas)),
            _ => format!("{at_least}{}", replicas(need)),
        };
        write!(
            f,
            "{at_least}{} on {} of {}{} {} {need}",
            plural(lag.messages, "message"),
            lag.partitions_with_work,
            plural(
                u128::from(lag.partitions.saturating_add(lag.missing)),
                "partition"
            ),
            self.start
                .map(|start| format!(" ({} queued)", start.queued))
                .unwrap_or_default(),
            if lag.messages == 1 { "needs" } else { "need" },
        )?;
        self.write_forecast(f)
    }

    fn write_forecast(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((start, wait)) = self.start.and_then(|start| Some((start, start.wait?))) else {
            return Ok(());
        };
        let workers = match start.replicas {
            1 => "1 replica begins".to_owned(),
            more => format!("{more} replicas begin"),
        };
        write!(
            f,
            "; {workers} the last within {} s of its arrival (deadline {} s, start-up {} s)",
            wait.as_secs(),
            start.deadline.as_secs(),
            start.startup.as_secs()
        )
    }

    fn write_consequence(&self, f: &mut fmt::Formatter<'_>, why: &str) -> fmt::Result {
        let unchanged = unchanged(self.current);
        let enough = enough(self.limited_need.unwrap_or(self.current));
        let desired = replicas(self.desired);
        let max = self.limits.max();
        let unknown = format!("is unknown ({why}): {unchanged}");
        match self.decision_reason {
            Reason::BacklogCovered => self.write_covered(f),
            Reason::AtMinimum => write!(f, "; minReplicas is {}", self.limits.min()),
            Reason::LimitedByMaxReplicas => write!(f, "; limited by maxReplicas ({max})"),
            Reason::LimitedByPartitions => {
                write!(f, "; limited to {} by the partitions with messages", self.desired)
            }
            Reason::HeldUnknownLag => write!(f, " ({why}): {unchanged}"),
            Reason::HeldPartialLag => {
                let missing = self.lag.map_or(0, |lag| lag.missing);
                let partitions = plural(u128::from(missing), "partition");
                write!(f, "; {partitions} could not be read ({why}): {unchanged}")
            }
            Reason::HeldUnknownMembers => {
                write!(f, "; {enough}, but which pods are idle {unknown}")
            }
            Reason::HeldUnknownPods => write!(f, "; {enough}, but which pods exist {unknown}"),
            Reason::HeldByRollout => write!(
                f,
                "; {enough}, but a rolling update is not complete, and fewer replicas would remove pods of both \
                 templates, busy or not: {unchanged}"
            ),
            Reason::HeldBusy => {
                let busy = self.pods.activity.map_or(0, Activity::possibly_busy);
                let workers = plural(busy.into(), "worker");
                write!(
                    f,
                    "; {enough}, but {workers} with a task or an unknown state must finish first"
                )
            }
            Reason::HeldDraining => {
                let draining = plural(u128::from(self.pods.draining), "draining worker");
                write!(f, "; limited by maxReplicas ({max}), which includes {draining}")
            }
            Reason::HeldUnschedulable => {
                let pods = plural(u128::from(self.pods.unschedulable), "pod");
                write!(f, "; no node has room for {pods}: limited to {desired}")
            }
            Reason::HeldByDependency => {
                write!(
                    f,
                    "; {why}: no worker is added until the dependency accepts again"
                )
            }
            Reason::Stabilizing => {
                let seconds = self.stabilization.as_secs();
                write!(f, "; {enough}: scale-down after {seconds} s of stabilization")
            }
            Reason::CoolingDown => f.write_str("; cooldown after the last change"),
            Reason::Rebalancing => write!(f, "; the consumer group is rebalancing: {unchanged}"),
            Reason::SelectingIdlePods => write!(
                f,
                "; {enough}: idle pods become scale-down candidates and are checked again"
            ),
            Reason::ScalingDown => {
                let (from, to) = (self.current, self.desired);
                write!(f, "; {enough}: scaling down from {from} to {to}, idle pods only")
            }
            // Written by `fmt`.
            Reason::Paused | Reason::DryRun | Reason::Conflict => Ok(()),
        }
    }

    fn write_covered(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let desired = replicas(self.desired);
        if self.pods.draining > 0 && self.need.is_some_and(|need| need > self.desired) {
            let draining = plural(u128::from(self.pods.draining), "draining worker");
            write!(f, "; {draining} will finish one message each: {desired}")
        } else {
            write!(f, ": {desired}")
        }
    }
}

fn plural(count: u128, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

fn replicas(count: u32) -> String {
    plural(u128::from(count), "replica")
}

fn enough(count: u32) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb} enough", replicas(count))
}

fn unchanged(count: u32) -> String {
    format!("replicas stay at {count}")
}
