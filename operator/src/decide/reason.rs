//! Why a number is what it is: one word for machines, one sentence for people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::fleet::PodCounts;

/// Why the number of workers is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// As many as the work deserves.
    NeedMet,
    /// As many as the policy asks for at least.
    AtMinimum,
    /// The policy allows no more.
    CappedByMax,
    /// More would find no partition with work.
    CappedByPartitions,
    /// Lag is not known.
    HeldUnknownLag,
    /// Lag of some partitions is not known.
    HeldPartialLag,
    /// Who is idle is not known.
    HeldUnknownMembers,
    /// Fewer would do, but which pods exist is not known.
    HeldUnknownPods,
    /// Fewer would do, but pods of two ReplicaSets exist.
    HeldByRollout,
    /// Fewer would do, but they hold tasks.
    HeldBusy,
    /// More are needed, but draining ones still count.
    HeldDraining,
    /// More are needed, but some already find no node.
    HeldUnschedulable,
    /// More are needed, but a worker reports that a dependency refuses it.
    HeldByDependency,
    /// Fewer would do, but not for long enough yet.
    Stabilising,
    /// The last change is too fresh.
    Settling,
    /// The group is sharing out its partitions.
    Rebalancing,
    /// Idle ones are marked, and looked at once more.
    MarkingIdle,
    /// Idle ones go.
    ScalingIn,
    /// The pool is paused.
    Paused,
    /// The pool wants advice only.
    RecommendOnly,
    /// Somebody else takes from the same group and topic.
    Conflict,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::NeedMet,
        Self::AtMinimum,
        Self::CappedByMax,
        Self::CappedByPartitions,
        Self::HeldUnknownLag,
        Self::HeldPartialLag,
        Self::HeldUnknownMembers,
        Self::HeldUnknownPods,
        Self::HeldByRollout,
        Self::HeldBusy,
        Self::HeldDraining,
        Self::HeldUnschedulable,
        Self::HeldByDependency,
        Self::Stabilising,
        Self::Settling,
        Self::Rebalancing,
        Self::MarkingIdle,
        Self::ScalingIn,
        Self::Paused,
        Self::RecommendOnly,
        Self::Conflict,
    ];

    /// One word, as in status, events, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NeedMet => "NeedMet",
            Self::AtMinimum => "AtMinimum",
            Self::CappedByMax => "CappedByMax",
            Self::CappedByPartitions => "CappedByPartitions",
            Self::HeldUnknownLag => "HeldUnknownLag",
            Self::HeldPartialLag => "HeldPartialLag",
            Self::HeldUnknownMembers => "HeldUnknownMembers",
            Self::HeldUnknownPods => "HeldUnknownPods",
            Self::HeldByRollout => "HeldByRollout",
            Self::HeldBusy => "HeldBusy",
            Self::HeldDraining => "HeldDraining",
            Self::HeldUnschedulable => "HeldUnschedulable",
            Self::HeldByDependency => "HeldByDependency",
            Self::Stabilising => "Stabilising",
            Self::Settling => "Settling",
            Self::Rebalancing => "Rebalancing",
            Self::MarkingIdle => "MarkingIdle",
            Self::ScalingIn => "ScalingIn",
            Self::Paused => "Paused",
            Self::RecommendOnly => "RecommendOnly",
            Self::Conflict => "Conflict",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The bound that bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Bound {
    /// None did.
    #[default]
    None,
    /// The fewest workers.
    Min,
    /// The most workers.
    Max,
    /// Partitions with work.
    Partitions,
    /// Workers that hold a task.
    Busy,
    /// Draining workers.
    Draining,
    /// Nodes.
    Unschedulable,
    /// A dependency that refuses a worker.
    Dependency,
    /// A rolling update.
    Rollout,
}

impl Bound {
    /// One word, as in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Min => "Min",
            Self::Max => "Max",
            Self::Partitions => "Partitions",
            Self::Busy => "Busy",
            Self::Draining => "Draining",
            Self::Unschedulable => "Unschedulable",
            Self::Dependency => "Dependency",
            Self::Rollout => "Rollout",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The numbers behind a decision. Displayed, it is the sentence that a person reads; it changes only when one of them
/// does, not with the time that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, were the decision carried out; the same as `reason` but for advice.
    pub under: Reason,
    /// The bound that bit.
    pub bound: Bound,
    /// What waits; none when unknown.
    pub work: Option<WorkSeen>,
    /// Workers that the work deserves, bounds aside; none when unknown.
    pub need: Option<u32>,
    /// Workers that the work deserves within the bounds; none when unknown.
    pub wanted: Option<u32>,
    /// Workers before the decision.
    pub current: u32,
    /// Workers after it.
    pub desired: u32,
    /// What the pods do.
    pub pods: PodCounts,
    /// The fewest and the most that the policy allows.
    pub bounds: super::Bounds,
    /// How long fewer must do.
    pub stabilisation: Duration,
    /// What could not be read, or who else is there.
    pub why: Option<Arc<str>>,
}

/// Work that a decision saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkSeen {
    /// Messages not yet committed.
    pub messages: u128,
    /// Partitions with at least one.
    pub partitions_with_work: u32,
    /// Partitions that were read.
    pub partitions: u32,
    /// Partitions that were not.
    pub missing: u32,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.why.as_deref().unwrap_or("no reading yet");
        match self.reason {
            Reason::Conflict => {
                return write!(f, "{why}: {} until that is resolved", stay(self.current));
            }
            Reason::Paused => {
                return write!(f, "scaling is paused: {}", stay(self.current));
            }
            Reason::RecommendOnly => {
                write!(
                    f,
                    "advice only, {} would be set to {} ({}): ",
                    self.current, self.desired, self.under
                )?;
            }
            _ => {}
        }
        self.waiting(f)?;
        self.consequence(f, why)
    }
}

impl Explanation {
    fn waiting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(work), Some(need)) = (self.work, self.need) else {
            return f.write_str("lag is not known");
        };
        let at_least = if work.missing > 0 { "at least " } else { "" };
        if work.messages == 0 && work.missing == 0 {
            return f.write_str("nothing waits");
        }
        write!(
            f,
            "{at_least}{} on {} of {} {} {at_least}{}",
            plural(work.messages, "message"),
            work.partitions_with_work,
            plural(
                u128::from(work.partitions.saturating_add(work.missing)),
                "partition"
            ),
            if work.messages == 1 { "deserves" } else { "deserve" },
            workers(need)
        )
    }

    fn consequence(&self, f: &mut fmt::Formatter<'_>, why: &str) -> fmt::Result {
        let wanted = self.wanted.unwrap_or(self.current);
        let busy = self
            .pods
            .activity
            .map_or(0, |activity| activity.busy + activity.untold);
        match self.under {
            Reason::NeedMet
                if self.pods.draining > 0 && self.need.is_some_and(|need| need > self.desired) =>
            {
                let draining = plural(u128::from(self.pods.draining), "draining worker");
                write!(
                    f,
                    "; {draining} will finish one message each: {}",
                    workers(self.desired)
                )
            }
            Reason::NeedMet if self.desired == 0 => f.write_str(": no workers"),
            Reason::NeedMet => write!(f, ": {}", workers(self.desired)),
            Reason::AtMinimum => write!(f, "; minReplicas asks for {}", self.bounds.min()),
            Reason::CappedByMax => write!(f, "; maxReplicas allows {}", self.bounds.max()),
            Reason::CappedByPartitions => write!(f, "; more than {} would find nothing to do", self.desired),
            Reason::HeldUnknownLag => write!(f, " ({why}): {}", stay(self.current)),
            Reason::HeldPartialLag => {
                let missing = self.work.map_or(0, |work| work.missing);
                let partitions = plural(u128::from(missing), "partition");
                write!(
                    f,
                    "; {partitions} could not be read ({why}): {}",
                    stay(self.current)
                )
            }
            Reason::HeldUnknownMembers => {
                write!(
                    f,
                    "; {wanted} would do, but who is idle is not known ({why}): {}",
                    stay(self.current)
                )
            }
            Reason::HeldUnknownPods => write!(
                f,
                "; {wanted} would do, but which pods exist is not known ({why}): {}",
                stay(self.current)
            ),
            Reason::HeldByRollout => write!(
                f,
                "; {wanted} would do, but a rolling update is not complete, and fewer replicas would remove pods of both \
                 templates, busy or not: {}",
                stay(self.current)
            ),
            Reason::HeldBusy => write!(
                f,
                "; {wanted} would do, but first {} with a task or an unknown state must finish",
                workers(busy)
            ),
            Reason::HeldDraining => write!(
                f,
                "; {} with a last task to finish counted towards the {} that maxReplicas allows",
                plural(u128::from(self.pods.draining), "draining worker"),
                self.bounds.max()
            ),
            Reason::HeldUnschedulable => write!(
                f,
                "; no node has room for {}, so there will not be more than {}",
                workers(self.pods.unschedulable),
                self.desired
            ),
            Reason::HeldByDependency => {
                write!(f, "; {why}: no worker is added until that is repaired")
            }
            Reason::Stabilising => {
                write!(
                    f,
                    "; {wanted} would do, once that held for {} s",
                    self.stabilisation.as_secs()
                )
            }
            Reason::Settling => f.write_str("; the last change settles first"),
            Reason::Rebalancing => {
                write!(
                    f,
                    "; the group is sharing out its partitions: {}",
                    stay(self.current)
                )
            }
            Reason::MarkingIdle => write!(
                f,
                "; {wanted} would do: idle ones are marked and looked at once more"
            ),
            Reason::ScalingIn => write!(
                f,
                "; {wanted} would do: from {} to {}, idle ones go",
                self.current, self.desired
            ),
            // Said above.
            Reason::Paused | Reason::RecommendOnly | Reason::Conflict => Ok(()),
        }
    }
}

fn plural(count: u128, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

fn workers(count: u32) -> String {
    plural(u128::from(count), "worker")
}

fn stay(count: u32) -> String {
    let verb = if count == 1 { "stays" } else { "stay" };
    format!("{} {verb}", workers(count))
}
