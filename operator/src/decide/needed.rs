//! Replicas the backlog needs, within the limits: exact integers, no tolerance.

use super::observation::{Lag, LagByPartition, Moment, Observation};
use super::policy::Policy;
use super::reason::{LagSummary, Limit, Reason};

/// Replicas the backlog needs; lower bounds if some partitions are unknown.
#[derive(Debug, Clone, Copy)]
pub(super) struct NeededReplicas<'a> {
    /// Messages of every partition; none if some are unknown.
    pub(super) known_lag: Option<&'a LagByPartition>,
    pub(super) summary: LagSummary,
    pub(super) need: u32,
    /// Target of a scale-up: draining workers finish one task each, and count toward `maxReplicas`.
    pub(super) scale_up: LimitedReplicas,
    /// Target of a scale-down: without regard to draining workers.
    pub(super) scale_down: LimitedReplicas,
}

/// A number of workers, and the limit that applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitedReplicas {
    pub(super) replicas: u32,
    pub(super) limit: Limit,
}

impl<'a> NeededReplicas<'a> {
    /// None if lag is unknown, or its last reading is too old.
    pub(super) fn new(policy: &Policy, observation: &'a Observation, now: Moment) -> Option<Self> {
        if now.since(observation.lag.at) > policy.stale_after {
            return None;
        }
        let (lag, known_lag, missing) = match &observation.lag.lag {
            Lag::Known(lag) => (lag, Some(lag), 0),
            Lag::Partial { known, missing, .. } => (known, None, *missing),
            Lag::Unknown { .. } => return None,
        };
        let summary = LagSummary {
            messages: lag.messages(),
            partitions_with_work: lag.partitions_with_work(),
            partitions: lag.partitions(),
            missing,
        };
        let need = policy.target.need(summary.messages);
        let scale_down = limited(policy, need, summary.partitions_with_work);
        Some(Self {
            known_lag,
            summary,
            need,
            scale_up: beside_draining(policy, observation, summary, scale_down),
            scale_down,
        })
    }
}

/// `max(min, min(need, max, partitions with messages))`.
fn limited(policy: &Policy, need: u32, partitions_with_work: u32) -> LimitedReplicas {
    let (min, max) = (policy.limits.min(), policy.limits.max());
    let capped = need.min(max).min(partitions_with_work);
    let limit = if capped < min {
        Limit::Min
    } else if capped == need {
        Limit::None
    } else if capped == max {
        Limit::Max
    } else {
        Limit::Partitions
    };
    LimitedReplicas {
        replicas: capped.max(min),
        limit,
    }
}

/// Target of a scale-up beside draining workers: each finishes one message, and counts toward `maxReplicas`.
fn beside_draining(
    policy: &Policy,
    observation: &Observation,
    lag: LagSummary,
    without_draining: LimitedReplicas,
) -> LimitedReplicas {
    let draining = observation.workload.draining(&observation.group);
    if draining == 0 {
        return without_draining;
    }
    let queued = lag.messages.saturating_sub(u128::from(draining));
    let needed = limited(policy, policy.target.need(queued), lag.partitions_with_work);
    let left = policy.limits.max().saturating_sub(draining);
    if needed.replicas <= left {
        return needed;
    }
    LimitedReplicas {
        replicas: left,
        limit: Limit::Draining,
    }
}

impl Limit {
    /// The reason if only this limit applied.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::None => Reason::BacklogCovered,
            Self::Min => Reason::AtMinimum,
            Self::Max => Reason::LimitedByMaxReplicas,
            Self::Partitions => Reason::LimitedByPartitions,
            Self::Busy => Reason::HeldBusy,
            Self::Draining => Reason::HeldDraining,
            Self::Unschedulable => Reason::HeldUnschedulable,
            Self::Dependency => Reason::HeldByDependency,
            Self::Rollout => Reason::HeldByRollout,
        }
    }
}
