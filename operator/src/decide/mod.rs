//! Desired replicas of a pool and their reason: a plain function of policy, observation, history and time.
//!
//! It has no client, no clock and no I/O; the controller, `separation-operator local` and simulations call the same
//! function. Guarantees, for any input:
//!
//! 1. Unknown lag never lowers replicas; partly known lag may raise them, never lower them.
//! 2. Only pods that were idle in two consecutive readings, and again after their annotation, are removed.
//! 3. Replicas are not lowered while pods of two ReplicaSets exist, or while it is unknown which pods exist: a member
//!    of the group may hold a task, whether its pod is known or not.
//! 4. More messages never mean fewer replicas.
//! 5. While a worker reports that a dependency refuses it, no worker is added beyond the minimum, or one.
//! 6. Deciding again after the decision was executed changes nothing.
//!
//! A decision is an ordered plan of writes. The history advances with each write that was executed
//! ([`Decision::execute_next`], or [`History::executed`] for a write that takes time), so that a write that failed is
//! decided again.

mod deletion_order;
mod estimates;
mod fleet;
mod history;
mod messages;
mod needed;
mod observation;
mod policy;
mod reason;
mod start_deadline;
mod write;

#[cfg(test)]
mod pod_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod recorded;
#[cfg(test)]
pub(crate) mod scene;
#[cfg(test)]
mod start_deadline_properties;
#[cfg(test)]
mod start_deadline_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use estimates::{LearnedSummary, LearnedTimes};
pub use fleet::{Activity, PodCounts};
pub use history::History;
pub use needed::explain;
pub use observation::{
    CostAnnotation, Estimates, GroupReading, Lag, LagByPartition, LagReading, Member, MemberWork, Moment,
    Observation, PartitionLag, PartitionQueue, Pod, PodName, PodState, PodStatus, Queue, RunningTask,
    Workload,
};
pub use policy::{DeclaredEstimates, Mode, Policy, ReplicaLimits, Target, completion_time};
pub use reason::{Explanation, LagSummary, Limit, Reason, StartForecast};
pub use write::Write;

use fleet::Fleet;
use history::ScaleDown;
use needed::{LimitedReplicas, NeededReplicas};

/// How long a worker that starts must not have been needed before it is removed, with the target `StartDeadline`. It
/// has no task, so that the stabilization window, which keeps workers for the next tasks, does not apply.
const STARTING_STABILIZATION: Duration = Duration::from_secs(15);

/// Result of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Writes to execute now, in this order; empty if nothing changes.
    pub plan: Vec<Write>,
    /// Reason and numbers; `explanation.desired` is the desired replicas.
    pub explanation: Explanation,
    /// Argument of the next decision, after each executed write was recorded in it.
    pub history: History,
}

impl Decision {
    /// Desired replicas.
    pub fn desired(&self) -> u32 {
        self.explanation.desired
    }

    /// Reported reason.
    pub fn reason(&self) -> Reason {
        self.explanation.reason
    }

    /// Executes the first write of the plan and records it in the history; none if no write is left. The rest is
    /// executed next, or decided again.
    pub fn execute_next(&mut self, now: Moment, execute: impl FnOnce(&Write)) -> Option<Write> {
        let write = (!self.plan.is_empty()).then(|| self.plan.remove(0))?;
        execute(&write);
        self.history.executed(&write, now);
        Some(write)
    }
}

/// Decides desired replicas. `history` is from the last decision, or the default for the first one.
pub fn decide(policy: &Policy, observation: &Observation, mut history: History, now: Moment) -> Decision {
    let needed = NeededReplicas::new(policy, observation, now);
    let fleet = Fleet::new(observation, needed.and_then(|needed| needed.known_lag));
    fleet::count_idle(&mut history, observation, &fleet);
    history.rebalancing_since = match observation.group {
        GroupReading::Rebalancing { at } => history.rebalancing_since.or(Some(at)),
        _ => None,
    };
    let mut proposal = Situation {
        policy,
        observation,
        fleet: &fleet,
        now,
    }
    .proposal(needed, &mut history);
    if history.scale_down == ScaleDown::None {
        // Members are not read now, so that later readings are not consecutive to earlier ones.
        history.idle.clear();
        history.annotated_at = None;
        history.starting = None;
        // The annotations stay until surplus pods are gone, because Kubernetes chooses by them which pods to delete.
        if fleet.excess == 0 {
            proposal.unannotate = fleet::annotated(&observation.workload)
                .map(|pod| pod.name.clone())
                .collect();
        }
    }
    let advice = policy.mode == Mode::DryRun && !matches!(proposal.reason, Reason::Conflict);
    let current = observation.workload.replicas;
    let explanation = Explanation {
        reason: if advice { Reason::DryRun } else { proposal.reason },
        decision_reason: proposal.reason,
        limit: proposal.limit,
        lag: needed.map(|needed| needed.summary),
        need: needed.map(|needed| needed.need),
        start: needed.and_then(|needed| needed.start),
        limited_need: needed.map(|needed| needed.scale_down.replicas),
        current,
        desired: proposal.desired,
        pods: fleet.counts,
        limits: policy.limits,
        stabilization: policy.stabilization_of(current),
        why: why(&proposal, observation, &fleet),
    };
    Decision {
        plan: if advice {
            Vec::new()
        } else {
            proposal.into_plan(current)
        },
        explanation,
        history,
    }
}

/// Desired replicas with their reason, and annotations to change.
struct Proposal {
    reason: Reason,
    limit: Limit,
    desired: u32,
    annotate: Vec<PodName>,
    unannotate: Vec<PodName>,
}

impl Proposal {
    /// Replicas are written first, because queued tasks need them. They are lowered only if there are no pods to
    /// annotate.
    fn into_plan(self, current: u32) -> Vec<Write> {
        let replicas = (self.desired != current).then_some(Write::SetReplicas(self.desired));
        let unannotate = (!self.unannotate.is_empty()).then_some(Write::Unannotate(self.unannotate));
        let annotate = (!self.annotate.is_empty()).then_some(Write::Annotate(self.annotate));
        [replicas, unannotate, annotate].into_iter().flatten().collect()
    }
}

/// Pods that a scale-down may remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removable {
    /// Pods without a task.
    Idle,
    /// Of these, the ones that are neither ready nor members of the group.
    Starting,
}

/// Arguments of every rule.
#[derive(Clone, Copy)]
struct Situation<'a> {
    policy: &'a Policy,
    observation: &'a Observation,
    fleet: &'a Fleet<'a>,
    now: Moment,
}

impl Situation<'_> {
    fn proposal(self, needed: Option<NeededReplicas<'_>>, history: &mut History) -> Proposal {
        let current = self.current();
        if self.observation.conflict.is_some() {
            history.scale_down = ScaleDown::None;
            return self.hold(Reason::Conflict, Limit::None);
        }
        if self.policy.mode == Mode::Paused {
            history.scale_down = ScaleDown::None;
            return self.hold(Reason::Paused, Limit::None);
        }
        let Some(NeededReplicas {
            known_lag,
            scale_up,
            scale_down,
            ..
        }) = needed
        else {
            history.scale_down = ScaleDown::None;
            let min = self.policy.limits.min();
            return if min > current {
                self.scale_to(min, Reason::AtMinimum, Limit::Min)
            } else {
                self.hold(Reason::HeldUnknownLag, Limit::None)
            };
        };
        if scale_down.replicas >= current {
            history.scale_down = ScaleDown::None;
            if scale_up.replicas > current {
                return self.scale_up(scale_up, history);
            }
        }
        if known_lag.is_none() {
            history.scale_down = ScaleDown::None;
            return self.hold(Reason::HeldPartialLag, scale_down.limit);
        }
        if scale_down.replicas == current {
            return self.hold(scale_down.limit.reason(), scale_down.limit);
        }
        if scale_down.replicas > current {
            // Draining workers finish the rest, or count toward maxReplicas.
            return self.hold(scale_up.limit.reason(), scale_up.limit);
        }
        self.scale_down(scale_down, history)
    }

    fn scale_up(self, target: LimitedReplicas, history: &History) -> Proposal {
        let current = self.current();
        if self.observation.refusal.is_some() {
            // Held messages keep the lag high. Only a worker can report that the refusal has ended: one is kept.
            let desired = current.max(self.policy.limits.min()).max(1);
            return self.scale_to(desired, Reason::HeldByDependency, Limit::Dependency);
        }
        if self.fleet.counts.unschedulable > 0 {
            // Only a raised minReplicas adds workers.
            let desired = current.max(self.policy.limits.min());
            return self.scale_to(desired, Reason::HeldUnschedulable, Limit::Unschedulable);
        }
        if self.cooling_down(history) {
            return self.hold(Reason::CoolingDown, target.limit);
        }
        let rebalancing = history.rebalancing_since;
        if rebalancing.is_some_and(|since| self.now.since(since) < self.policy.rebalance_hold) {
            return self.hold(Reason::Rebalancing, target.limit);
        }
        self.scale_to(target.replicas, target.limit.reason(), target.limit)
    }

    fn scale_down(self, target: LimitedReplicas, history: &mut History) -> Proposal {
        let current = self.current();
        history.scale_down = self.advance(history.scale_down, target.replicas);
        if let ScaleDown::Executing { goal } = history.scale_down {
            let held = self.hold_removal(target.limit, history);
            return held
                .unwrap_or_else(|| self.lower_replicas(current - goal, Removable::Idle, target, history));
        }
        let surplus = self.starting_surplus(target.replicas, history);
        if surplus > 0 && self.hold_removal(target.limit, history).is_none() {
            return self.lower_replicas(surplus, Removable::Starting, target, history);
        }
        self.hold(Reason::Stabilizing, target.limit)
    }

    /// Why no pod may be removed now; none if idle ones may.
    fn hold_removal(self, limit: Limit, history: &History) -> Option<Proposal> {
        // Pods that the last change still removes must not count toward another change; nor must pods of a spec that
        // the Deployment controller has not yet observed.
        let workload = &self.observation.workload;
        let unobserved = workload.status.is_some_and(|status| !status.observed);
        if self.cooling_down(history) || unobserved {
            return Some(self.hold(Reason::CoolingDown, limit));
        }
        if workload.is_rolling() {
            return Some(self.hold(Reason::HeldByRollout, Limit::Rollout));
        }
        if self.fleet.excess > 0 {
            return Some(self.hold(Reason::CoolingDown, limit));
        }
        match self.observation.group {
            GroupReading::Rebalancing { .. } => return Some(self.hold(Reason::Rebalancing, limit)),
            GroupReading::NotRead | GroupReading::Unknown { .. } => {
                return Some(self.hold(Reason::HeldUnknownMembers, Limit::Busy));
            }
            GroupReading::Stable { .. } => {}
        }
        // A reading from before the last change does not show which pods are left.
        if history.last_change.is_some_and(|at| !self.read_after(at)) {
            return Some(self.hold(Reason::CoolingDown, limit));
        }
        if self.fleet.unknown_pods(workload).is_some() {
            return Some(self.hold(Reason::HeldUnknownPods, Limit::Busy));
        }
        self.fleet
            .busy_would_be_deleted_first
            .then(|| self.hold(Reason::HeldBusy, Limit::Busy))
    }

    /// Number of workers that start and were not needed for [`STARTING_STABILIZATION`]. The last worker stays.
    fn starting_surplus(self, needed: u32, history: &mut History) -> u32 {
        if self.policy.target.start_deadline().is_none() {
            return 0;
        }
        let current = self.current();
        let (since, highest) = match history.starting {
            Some((since, highest)) if highest < current => (since, highest.max(needed)),
            _ => (self.now, needed),
        };
        history.starting = Some((since, highest));
        if self.now.since(since) < STARTING_STABILIZATION {
            return 0;
        }
        current.saturating_sub(highest.max(1)).min(self.fleet.starting())
    }

    /// Lowers replicas by up to `surplus`: by those without a pod and by pods that were confirmed idle. Makes other
    /// idle pods scale-down candidates.
    fn lower_replicas(
        self,
        surplus: u32,
        removable: Removable,
        target: LimitedReplicas,
        history: &History,
    ) -> Proposal {
        let idle: Vec<&Pod> = match removable {
            Removable::Idle => self.fleet.candidates(history).collect(),
            Removable::Starting => self.fleet.starting_candidates(surplus, history).collect(),
        };
        let names: BTreeSet<&PodName> = idle.iter().map(|pod| &pod.name).collect();
        let not_idle =
            || fleet::annotated(&self.observation.workload).filter(|pod| !names.contains(&pod.name));
        let advice = self.policy.mode == Mode::DryRun;
        // Annotations change on one reading, and replicas on a later one.
        let read_since = history.annotated_at.is_none_or(|at| self.read_after(at));
        let annotate_again = history.annotated_at.is_none();
        let confirmed = idle
            .iter()
            .filter(|pod| advice || (!annotate_again && pod.cost_annotation == CostAnnotation::Present))
            .count();
        let removed = u32::try_from(confirmed)
            .unwrap_or(u32::MAX)
            .saturating_add(self.fleet.missing)
            .min(surplus);
        // Kubernetes may delete any annotated pod: one that has a task by now must lose its annotation first.
        if removed > 0 && (advice || (read_since && not_idle().next().is_none())) {
            let limit = if removed < surplus && removable == Removable::Idle {
                Limit::Busy
            } else {
                target.limit
            };
            return self.scale_to(self.current() - removed, Reason::ScalingDown, limit);
        }
        let surplus = usize::try_from(surplus).unwrap_or(usize::MAX);
        let (reason, limit) = match removable {
            Removable::Idle if idle.is_empty() => (Reason::HeldBusy, Limit::Busy),
            Removable::Starting if idle.is_empty() => (Reason::Stabilizing, target.limit),
            Removable::Idle | Removable::Starting => (Reason::SelectingIdlePods, target.limit),
        };
        // Annotations of an earlier leader are set again: it is unknown when they were set.
        let annotate = idle
            .iter()
            .take(surplus)
            .filter(|pod| annotate_again || pod.cost_annotation == CostAnnotation::Absent);
        Proposal {
            annotate: annotate.map(|pod| pod.name.clone()).collect(),
            unannotate: not_idle().map(|pod| pod.name.clone()).collect(),
            ..self.hold(reason, limit)
        }
    }

    fn advance(self, scale_down: ScaleDown, needed: u32) -> ScaleDown {
        let current = self.current();
        let (since, highest) = match scale_down {
            ScaleDown::Executing { goal } if goal < current => {
                return ScaleDown::Executing {
                    goal: goal.max(needed),
                };
            }
            ScaleDown::Stabilizing { since, highest } if highest < current => (since, highest.max(needed)),
            // It begins; or the goal was reached, by us or by another client, and still fewer are enough: stabilization
            // starts again.
            _ => (self.now, needed),
        };
        let elapsed = self.now.since(since);
        // While the last replica must stay, the others may go.
        let last_stays = highest == 0 && elapsed < self.policy.last_replica_stabilization;
        let goal = highest.max(u32::from(last_stays));
        if elapsed >= self.policy.stabilization_of(current) && goal < current {
            ScaleDown::Executing { goal }
        } else {
            ScaleDown::Stabilizing { since, highest }
        }
    }

    /// Whether lag and members were both read after `moment`.
    fn read_after(self, moment: Moment) -> bool {
        let group = match self.observation.group {
            GroupReading::Stable { at, .. } => at,
            _ => return false,
        };
        self.observation.lag.at > moment && group > moment
    }

    fn cooling_down(self, history: &History) -> bool {
        let last = history.last_change;
        last.is_some_and(|at| self.now.since(at) < self.policy.cooldown)
    }

    fn current(self) -> u32 {
        self.observation.workload.replicas
    }

    fn hold(self, reason: Reason, limit: Limit) -> Proposal {
        self.scale_to(self.current(), reason, limit)
    }

    fn scale_to(self, desired: u32, reason: Reason, limit: Limit) -> Proposal {
        Proposal {
            reason,
            limit,
            desired,
            annotate: Vec::new(),
            unannotate: Vec::new(),
        }
    }
}

fn why(proposal: &Proposal, observation: &Observation, fleet: &Fleet<'_>) -> Option<Arc<str>> {
    match (proposal.reason, &observation.lag.lag, &observation.group) {
        (Reason::Conflict, ..) => observation.conflict.clone(),
        (Reason::HeldByDependency, ..) => observation.refusal.clone(),
        (Reason::HeldUnknownPods, ..) => fleet.unknown_pods(&observation.workload),
        (Reason::HeldUnknownLag, Lag::Known(_), _) => Some("the last reading is too old".into()),
        (
            Reason::HeldUnknownLag | Reason::HeldPartialLag,
            Lag::Unknown { why } | Lag::Partial { why, .. },
            _,
        ) => Some(Arc::clone(why)),
        (Reason::HeldUnknownMembers, _, GroupReading::Unknown { why, .. }) => Some(Arc::clone(why)),
        _ => None,
    }
}
