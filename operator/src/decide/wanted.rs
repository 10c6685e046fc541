//! How many workers the work deserves, within the bounds: exact integers, no tolerance.

use super::observation::{Lag, Moment, Observation, Work};
use super::policy::Policy;
use super::reason::{Bound, Reason, WorkSeen};

/// How many workers the work deserves, as far as that is known.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// Of all the work.
    Known {
        work: &'a Work,
        seen: WorkSeen,
        need: u32,
        /// To scale out to: draining workers finish one task each, and still hold their places.
        out: Replicas,
        /// To scale in to: draining workers aside.
        within: Replicas,
    },
    /// At least.
    Partial {
        seen: WorkSeen,
        need: u32,
        out: Replicas,
        within: Replicas,
    },
    /// Not at all.
    Unknown { stale: bool },
}

/// A number of workers, and the bound that shaped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replicas {
    pub(super) replicas: u32,
    pub(super) bound: Bound,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(policy: &Policy, observation: &'a Observation, now: Moment) -> Self {
        if now.since(observation.lag.at) > policy.stale_after {
            return Self::Unknown { stale: true };
        }
        let (work, missing) = match &observation.lag.lag {
            Lag::Known(work) => (work, 0),
            Lag::Partial { known, missing, .. } => (known, *missing),
            Lag::Unknown { .. } => return Self::Unknown { stale: false },
        };
        let seen = WorkSeen {
            messages: work.messages(),
            partitions_with_work: work.partitions_with_work(),
            partitions: work.partitions(),
            missing,
        };
        let need = policy.target.need(seen.messages);
        let within = bounded(policy, need, seen.partitions_with_work);
        let out = beside_draining(policy, observation, seen, within);
        if matches!(observation.lag.lag, Lag::Known(_)) {
            Self::Known {
                work,
                seen,
                need,
                out,
                within,
            }
        } else {
            Self::Partial {
                seen,
                need,
                out,
                within,
            }
        }
    }

    /// The work of every partition; none where some are unknown.
    pub(super) fn whole_work(&self) -> Option<&'a Work> {
        match self {
            Self::Known { work, .. } => Some(work),
            _ => None,
        }
    }

    pub(super) fn seen(&self) -> Option<WorkSeen> {
        match self {
            Self::Known { seen, .. } | Self::Partial { seen, .. } => Some(*seen),
            Self::Unknown { .. } => None,
        }
    }

    pub(super) fn need(&self) -> Option<u32> {
        match self {
            Self::Known { need, .. } | Self::Partial { need, .. } => Some(*need),
            Self::Unknown { .. } => None,
        }
    }

    pub(super) fn within_bounds(&self) -> Option<u32> {
        match self {
            Self::Known { within, .. } | Self::Partial { within, .. } => Some(within.replicas),
            Self::Unknown { .. } => None,
        }
    }

    pub(super) fn stale(&self) -> bool {
        matches!(self, Self::Unknown { stale: true })
    }
}

/// `max(min, min(need, max, partitions with work))`.
fn bounded(policy: &Policy, need: u32, partitions_with_work: u32) -> Replicas {
    let (min, max) = (policy.bounds.min(), policy.bounds.max());
    let capped = need.min(max).min(partitions_with_work);
    let bound = if capped < min {
        Bound::Min
    } else if capped == need {
        Bound::None
    } else if capped == max {
        Bound::Max
    } else {
        Bound::Partitions
    };
    Replicas {
        replicas: capped.max(min),
        bound,
    }
}

/// What there is to scale out to beside draining workers: each finishes one message, and holds one of the places that
/// the policy allows.
fn beside_draining(policy: &Policy, observation: &Observation, seen: WorkSeen, within: Replicas) -> Replicas {
    let draining = observation.workload.draining(&observation.group);
    if draining == 0 {
        return within;
    }
    let waiting = seen.messages.saturating_sub(u128::from(draining));
    let needed = bounded(policy, policy.target.need(waiting), seen.partitions_with_work);
    let places = policy.bounds.max().saturating_sub(draining);
    if needed.replicas <= places {
        return needed;
    }
    Replicas {
        replicas: places,
        bound: Bound::Draining,
    }
}

impl Bound {
    /// The reason where nothing but this bound shapes the number.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::None => Reason::NeedMet,
            Self::Min => Reason::AtMinimum,
            Self::Max => Reason::CappedByMax,
            Self::Partitions => Reason::CappedByPartitions,
            Self::Busy => Reason::HeldBusy,
            Self::Draining => Reason::HeldDraining,
            Self::Unschedulable => Reason::HeldUnschedulable,
            Self::Dependency => Reason::HeldByDependency,
            Self::Rollout => Reason::HeldByRollout,
        }
    }
}
