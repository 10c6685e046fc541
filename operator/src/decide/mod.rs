//! How many workers a pool should have, and why: a plain function of policy, observation, history and time.
//!
//! It has no client, no clock and nothing to wait for; the cluster, a pool on one machine and simulations call the same
//! one. What it always keeps, whatever it is given:
//!
//! 1. Lag that is unknown never lowers replicas; lag that is partly known may raise them, never lower them.
//! 2. Only pods that were idle in two readings in a row, and once more after they were marked, are taken away.
//! 3. Nothing is taken away while pods of two ReplicaSets exist, or while it is not known which pods exist: a member of
//!    the group may hold a task, whether its pod is known or not.
//! 4. More work never means fewer replicas.
//! 5. While a worker reports that a dependency refuses it, no worker is added beyond the minimum, or one.
//! 6. Deciding again after the decision was carried out changes nothing.
//!
//! A decision is a plan of writes in order. The history advances with each write that was carried out
//! ([`History::executed`]), so that a write that was not is decided again.

mod fleet;
mod history;
mod observation;
mod policy;
mod reason;
mod wanted;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_pods;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use fleet::{Activity, PodCounts};
pub use history::History;
pub use observation::{
    GroupReading, Holds, Lag, LagReading, Marked, Member, Moment, Observation, PartitionWork, Pod, PodName,
    PodState, PodStatus, Work, Workload,
};
pub use policy::{Bounds, Mode, Policy, Target};
pub use reason::{Bound, Explanation, Reason, WorkSeen};

use fleet::Fleet;
use history::ScaleIn;
use wanted::Wanted;

/// What to do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to write now, in this order; empty where nothing changes.
    pub plan: Vec<Write>,
    /// Why, with the numbers that it rests on; `explanation.desired` is the number of workers.
    pub explanation: Explanation,
    /// Whether the next decision needs to know the group's members.
    pub members: MembersWanted,
    /// What the next decision must be given, once each write that was carried out was recorded in it.
    pub history: History,
}

/// One write of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Remove our deletion-cost annotation from these pods.
    Unannotate(Vec<PodName>),
    /// Set our deletion-cost annotation on these pods, so that they are deleted first.
    Annotate(Vec<PodName>),
    /// Set the number of replicas.
    SetReplicas(u32),
}

/// Whether the next decision needs to know the group's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersWanted {
    /// It does: a scale-in may be near.
    Yes,
    /// It does not.
    No,
}

impl Decision {
    /// How many workers are asked for.
    pub fn desired(&self) -> u32 {
        self.explanation.desired
    }

    /// Why, in one word.
    pub fn reason(&self) -> Reason {
        self.explanation.reason
    }
}

/// Decides. `history` is that of the last decision, or the default where there is none.
pub fn decide(policy: &Policy, observation: &Observation, mut history: History, now: Moment) -> Decision {
    let wanted = Wanted::of(policy, observation, now);
    let fleet = Fleet::of(observation, wanted.whole_work());
    fleet::count_idle(&mut history, observation, &fleet);
    history.rebalancing_since = match observation.group {
        GroupReading::Rebalancing { at } => history.rebalancing_since.or(Some(at)),
        _ => None,
    };
    let mut step = Situation {
        policy,
        observation,
        fleet: &fleet,
        now,
    }
    .step(&wanted, &mut history);
    if history.scale_in == ScaleIn::None {
        // Two readings with a time between them in which nobody looked are not in a row.
        history.idle.clear();
        history.marked_at = None;
        // Marks are what Kubernetes chooses by: they stay until it has chosen.
        if fleet.leaving == 0 {
            step.unmark = fleet::marked(&observation.workload)
                .map(|pod| pod.name.clone())
                .collect();
        }
    }
    let advice = policy.mode == Mode::RecommendOnly && !matches!(step.reason, Reason::Conflict);
    let current = observation.workload.replicas;
    let explanation = Explanation {
        reason: if advice {
            Reason::RecommendOnly
        } else {
            step.reason
        },
        under: step.reason,
        bound: step.bound,
        work: wanted.seen(),
        need: wanted.need(),
        wanted: wanted.within_bounds(),
        current,
        desired: step.desired,
        pods: fleet.counts,
        bounds: policy.bounds,
        stabilisation: policy.stabilisation,
        why: why(&step, observation, &wanted, &fleet),
    };
    Decision {
        plan: if advice {
            Vec::new()
        } else {
            step.into_plan(current)
        },
        explanation,
        members: match history.scale_in {
            ScaleIn::None => MembersWanted::No,
            _ => MembersWanted::Yes,
        },
        history,
    }
}

/// What is decided, before it is put into words.
struct Step {
    reason: Reason,
    bound: Bound,
    desired: u32,
    mark: Vec<PodName>,
    unmark: Vec<PodName>,
}

impl Step {
    /// More replicas come first, for tasks wait for them. Fewer are asked for only with no pods to annotate.
    fn into_plan(self, current: u32) -> Vec<Write> {
        let replicas = (self.desired != current).then_some(Write::SetReplicas(self.desired));
        let unannotate = (!self.unmark.is_empty()).then_some(Write::Unannotate(self.unmark));
        let annotate = (!self.mark.is_empty()).then_some(Write::Annotate(self.mark));
        [replicas, unannotate, annotate].into_iter().flatten().collect()
    }
}

/// The arguments that every rule may look at.
#[derive(Clone, Copy)]
struct Situation<'a> {
    policy: &'a Policy,
    observation: &'a Observation,
    fleet: &'a Fleet<'a>,
    now: Moment,
}

impl Situation<'_> {
    fn step(self, wanted: &Wanted<'_>, history: &mut History) -> Step {
        let current = self.current();
        if self.observation.conflict.is_some() {
            history.scale_in = ScaleIn::None;
            return self.hold(Reason::Conflict, Bound::None);
        }
        if self.policy.mode == Mode::Paused {
            history.scale_in = ScaleIn::None;
            return self.hold(Reason::Paused, Bound::None);
        }
        let (out, within) = match wanted {
            Wanted::Known { out, within, .. } | Wanted::Partial { out, within, .. } => (*out, *within),
            Wanted::Unknown { .. } => {
                history.scale_in = ScaleIn::None;
                let min = self.policy.bounds.min();
                return if min > current {
                    self.to(min, Reason::AtMinimum, Bound::Min)
                } else {
                    self.hold(Reason::HeldUnknownLag, Bound::None)
                };
            }
        };
        if within.replicas >= current {
            history.scale_in = ScaleIn::None;
            if out.replicas > current {
                return self.scale_out(out, history);
            }
        }
        if matches!(wanted, Wanted::Partial { .. }) {
            history.scale_in = ScaleIn::None;
            return self.hold(Reason::HeldPartialLag, within.bound);
        }
        if within.replicas == current {
            return self.hold(within.bound.reason(), within.bound);
        }
        if within.replicas > current {
            // Draining workers finish the rest, or hold the places that more would need.
            return self.hold(out.bound.reason(), out.bound);
        }
        self.scale_in(within, history)
    }

    fn scale_out(self, out: wanted::Replicas, history: &History) -> Step {
        let current = self.current();
        if self.observation.held.is_some() {
            // Held messages keep the lag up. Only a worker can report that the refusal has ended: one is kept.
            let desired = current.max(self.policy.bounds.min()).max(1);
            return self.to(desired, Reason::HeldByDependency, Bound::Dependency);
        }
        if self.fleet.counts.unschedulable > 0 {
            // Only a person who asks for more at least gets more.
            let desired = current.max(self.policy.bounds.min());
            return self.to(desired, Reason::HeldUnschedulable, Bound::Unschedulable);
        }
        if self.settling(history) {
            return self.hold(Reason::Settling, out.bound);
        }
        let rebalancing = history.rebalancing_since;
        if rebalancing.is_some_and(|since| self.now.since(since) < self.policy.rebalance_hold) {
            return self.hold(Reason::Rebalancing, out.bound);
        }
        self.to(out.replicas, out.bound.reason(), out.bound)
    }

    fn scale_in(self, within: wanted::Replicas, history: &mut History) -> Step {
        let current = self.current();
        let goal = match self.advance(history.scale_in, within.replicas) {
            ScaleIn::Executing { goal } => goal,
            waiting => {
                history.scale_in = waiting;
                return self.hold(Reason::Stabilising, within.bound);
            }
        };
        history.scale_in = ScaleIn::Executing { goal };
        // Who still goes by the last change must not count towards another one; nor does the controller's work on a spec
        // that it has not seen.
        let workload = &self.observation.workload;
        let unobserved = workload.status.is_some_and(|status| !status.observed);
        if self.settling(history) || unobserved {
            return self.hold(Reason::Settling, within.bound);
        }
        if workload.is_rolling() {
            return self.hold(Reason::HeldByRollout, Bound::Rollout);
        }
        if self.fleet.leaving > 0 {
            return self.hold(Reason::Settling, within.bound);
        }
        match self.observation.group {
            GroupReading::Rebalancing { .. } => return self.hold(Reason::Rebalancing, within.bound),
            GroupReading::NotRead | GroupReading::Unknown { .. } => {
                return self.hold(Reason::HeldUnknownMembers, Bound::Busy);
            }
            GroupReading::Stable { .. } => {}
        }
        // What was read before the last change says nothing about who is left.
        if history.last_change.is_some_and(|at| !self.read_after(at)) {
            return self.hold(Reason::Settling, within.bound);
        }
        if self.fleet.unknown_pods(workload).is_some() {
            return self.hold(Reason::HeldUnknownPods, Bound::Busy);
        }
        if self.fleet.busy_would_go_first {
            return self.hold(Reason::HeldBusy, Bound::Busy);
        }
        self.take_away(current - goal, within, history)
    }

    /// Takes away up to `surplus` workers: those without a pod, and those that were confirmed idle; marks what else is
    /// idle.
    fn take_away(self, surplus: u32, within: wanted::Replicas, history: &History) -> Step {
        let idle: Vec<&Pod> = self.fleet.candidates(history).collect();
        let names: BTreeSet<&PodName> = idle.iter().map(|pod| &pod.name).collect();
        let strays = || fleet::marked(&self.observation.workload).filter(|pod| !names.contains(&pod.name));
        let advice = self.policy.mode == Mode::RecommendOnly;
        // Marks and their removal are decided on one reading, and what follows from them on a later one.
        let seen_since = history.marked_at.is_none_or(|at| self.read_after(at));
        let again = history.marked_at.is_none();
        let confirmed = idle
            .iter()
            .filter(|pod| advice || (!again && pod.marked == Marked::Yes))
            .count();
        let leaving = u32::try_from(confirmed)
            .unwrap_or(u32::MAX)
            .saturating_add(self.fleet.missing)
            .min(surplus);
        // Kubernetes takes any marked pod: one that has a task by now must lose its mark first.
        if leaving > 0 && (advice || (seen_since && strays().next().is_none())) {
            let bound = if leaving < surplus {
                Bound::Busy
            } else {
                within.bound
            };
            return self.to(self.current() - leaving, Reason::ScalingIn, bound);
        }
        let surplus = usize::try_from(surplus).unwrap_or(usize::MAX);
        let (reason, bound) = if idle.is_empty() {
            (Reason::HeldBusy, Bound::Busy)
        } else {
            (Reason::MarkingIdle, within.bound)
        };
        // Marks of an earlier leader are set anew: when it set them is not known.
        let mark = idle
            .iter()
            .take(surplus)
            .filter(|pod| again || pod.marked == Marked::No);
        Step {
            mark: mark.map(|pod| pod.name.clone()).collect(),
            unmark: strays().map(|pod| pod.name.clone()).collect(),
            ..self.hold(reason, bound)
        }
    }

    fn advance(self, scale_in: ScaleIn, wanted: u32) -> ScaleIn {
        let current = self.current();
        let (since, highest) = match scale_in {
            ScaleIn::Executing { goal } if goal < current => {
                return ScaleIn::Executing {
                    goal: goal.max(wanted),
                };
            }
            ScaleIn::Stabilising { since, highest } if highest < current => (since, highest.max(wanted)),
            // It begins; or a goal was reached, by us or by somebody else, and fewer still would do: that must hold anew.
            _ => (self.now, wanted),
        };
        if self.now.since(since) >= self.policy.stabilisation {
            ScaleIn::Executing { goal: highest }
        } else {
            ScaleIn::Stabilising { since, highest }
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

    fn settling(self, history: &History) -> bool {
        let last = history.last_change;
        last.is_some_and(|at| self.now.since(at) < self.policy.settle)
    }

    fn current(self) -> u32 {
        self.observation.workload.replicas
    }

    fn hold(self, reason: Reason, bound: Bound) -> Step {
        self.to(self.current(), reason, bound)
    }

    fn to(self, desired: u32, reason: Reason, bound: Bound) -> Step {
        Step {
            reason,
            bound,
            desired,
            mark: Vec::new(),
            unmark: Vec::new(),
        }
    }
}

fn why(step: &Step, observation: &Observation, wanted: &Wanted<'_>, fleet: &Fleet<'_>) -> Option<Arc<str>> {
    match (step.reason, &observation.lag.lag, &observation.group) {
        (Reason::Conflict, ..) => observation.conflict.clone(),
        (Reason::HeldByDependency, ..) => observation.held.clone(),
        (Reason::HeldUnknownPods, ..) => fleet.unknown_pods(&observation.workload),
        (Reason::HeldUnknownLag, Lag::Known(_), _) if wanted.stale() => {
            Some("the last reading is too old".into())
        }
        (
            Reason::HeldUnknownLag | Reason::HeldPartialLag,
            Lag::Unknown { why } | Lag::Partial { why, .. },
            _,
        ) => Some(Arc::clone(why)),
        (Reason::HeldUnknownMembers, _, GroupReading::Unknown { why, .. }) => Some(Arc::clone(why)),
        _ => None,
    }
}
