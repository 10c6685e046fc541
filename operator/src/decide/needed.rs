//! Replicas the backlog needs, within the limits: exact integers, no tolerance.

use super::observation::{Lag, LagByPartition, Moment, Observation};
use super::policy::Policy;
use super::reason::{LagSummary, Limit, Reason, StartForecast};
use super::start_deadline::Schedule;

/// Replicas the backlog needs; lower bounds if some partitions are unknown.
#[derive(Debug, Clone, Copy)]
pub(super) struct NeededReplicas<'a> {
    /// Messages of every partition; none if some are unknown.
    pub(super) known_lag: Option<&'a LagByPartition>,
    pub(super) summary: LagSummary,
    pub(super) need: u32,
    pub(super) start: Option<StartForecast>,
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
        let (lag, missing) = readable(policy, observation, now)?;
        let summary = LagSummary {
            messages: lag.messages(),
            partitions_with_work: lag.partitions_with_work(),
            partitions: lag.partitions(),
            missing,
        };
        let backlog = Backlog {
            policy,
            lag: summary,
            schedule: schedule(policy, observation, lag, now),
        };
        let need = backlog.need(0);
        let scale_down = backlog.limited(need);
        let forecast = |schedule: &Schedule| schedule.forecast(scale_down.replicas);
        Some(Self {
            known_lag: matches!(observation.lag.lag, Lag::Known(_)).then_some(lag),
            summary,
            need,
            start: backlog.schedule.as_ref().map(forecast),
            scale_up: backlog.beside_draining(observation, scale_down),
            scale_down,
        })
    }
}

/// The schedule behind the decision about a pool with the target `StartDeadline`, step by step; empty for other
/// targets, and if lag is unknown.
pub fn explain(policy: &Policy, observation: &Observation, now: Moment) -> Vec<String> {
    let known = readable(policy, observation, now);
    let schedule = known.and_then(|(lag, _)| schedule(policy, observation, lag, now));
    schedule.map_or_else(Vec::new, |schedule| schedule.explain())
}

/// The partitions that were read, and the number of the others; none if lag is unknown, or its last reading is too old.
fn readable<'a>(
    policy: &Policy,
    observation: &'a Observation,
    now: Moment,
) -> Option<(&'a LagByPartition, u32)> {
    if now.since(observation.lag.at) > policy.stale_after {
        return None;
    }
    match &observation.lag.lag {
        Lag::Known(lag) => Some((lag, 0)),
        Lag::Partial { known, missing, .. } => Some((known, *missing)),
        Lag::Unknown { .. } => None,
    }
}

fn schedule(
    policy: &Policy,
    observation: &Observation,
    lag: &LagByPartition,
    now: Moment,
) -> Option<Schedule> {
    let deadline = policy.target.start_deadline()?;
    Some(Schedule::new(policy, observation, lag, deadline, now))
}

/// The backlog of a pool, and its target.
struct Backlog<'a> {
    policy: &'a Policy,
    lag: LagSummary,
    /// With the target `StartDeadline` only.
    schedule: Option<Schedule>,
}

impl Backlog<'_> {
    /// Replicas that it needs beside draining workers, each of which finishes one message.
    fn need(&self, draining: u32) -> u32 {
        match &self.schedule {
            Some(schedule) => schedule.need(draining),
            None => {
                let queued = self.lag.messages.saturating_sub(u128::from(draining));
                self.policy.target.need(queued).unwrap_or(u32::MAX)
            }
        }
    }

    /// `max(min, min(need, max, partitions with messages))`.
    fn limited(&self, need: u32) -> LimitedReplicas {
        let (min, max) = (self.policy.limits.min(), self.policy.limits.max());
        let capped = need.min(max).min(self.lag.partitions_with_work);
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
        &self,
        observation: &Observation,
        without_draining: LimitedReplicas,
    ) -> LimitedReplicas {
        let draining = observation.workload.draining(&observation.group);
        if draining == 0 {
            return without_draining;
        }
        let needed = self.limited(self.need(draining));
        let left = self.policy.limits.max().saturating_sub(draining);
        if needed.replicas <= left {
            return needed;
        }
        LimitedReplicas {
            replicas: left,
            limit: Limit::Draining,
        }
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
