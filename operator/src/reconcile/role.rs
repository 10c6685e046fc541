//! One role of a pool: what is known of it, and what to do next. Pure.
//!
//! One thing is done at a time, in this order: the Deployment as planned, offsets before the first worker, then the first
//! write of the decision's plan. The history advances once a write is done, and what is left is decided again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conflicts::WorkerIds;
use super::group_offsets::GroupOffsets;
use super::retry::{Contest, Retry};
use super::rollout::RolloutProgress;
use super::step::Step;
use crate::crd::AdoptionStatus;
use crate::decide::{
    Bounds, Decision, Explanation, GroupReading, History, Lag, LagReading, Marked, Moment, Observation,
    PodState, Policy, Workload, Write, decide,
};
use crate::kafka::{Cause, Unread};
use crate::observe::dependencies::{Outsiders, Refusal, oldest, refused_by_kafka, reported};
use crate::observe::poller::{MembersRead, Polled, Wanted};
use crate::observe::workload::{DeploymentSeen, Trouble, stuck_terminating};
use crate::observe::{Flag, Query, Relation};
use crate::plan::RolePlan;
use crate::watch::world::RoleKey;
use separation_contract::offset_metadata::Hold;

/// How often a role is read that the pool does not have: only so that its offsets are kept.
const READ_DISABLED_EVERY: Duration = Duration::from_secs(60);

/// Whether another user takes from the role's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// None is known.
    Ours,
    /// One is: nothing is written to it.
    Shared,
}

/// What was decided, and on what.
struct Decided {
    /// The first write of the plan.
    write: Option<Write>,
    /// Replicas as they are.
    replicas: u32,
    group: Group,
}

/// What a role is joined with for a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) plan: &'a RolePlan,
    /// Brokers that its workers are to connect to.
    pub(super) servers: &'a str,
    /// Its Deployment, as it was last told.
    pub(super) deployment: Option<&'a DeploymentSeen>,
    /// The hash of the Deployment that it should have.
    pub(super) manifest_hash: &'a str,
    /// Uid of the pool.
    pub(super) pool_uid: &'a str,
    /// How its workers are known among the members of its group.
    pub(super) worker_ids: &'a WorkerIds,
    /// What the pool's status says of the adoption.
    pub(super) written_adoption: Option<&'a AdoptionStatus>,
    /// How long offsets of an idle group are left before they are committed again.
    pub(super) keep_after: Duration,
}

/// What is known of a role.
#[derive(Debug, Default)]
pub(super) struct RoleState {
    history: History,
    /// The write of a plan that is being done.
    executing: Option<Write>,
    /// A rolling update that is not complete.
    pub(super) rollout: RolloutProgress,
    /// Pods that should have been gone some time ago.
    pub(super) stuck: Option<Trouble>,
    reading: Option<Reading>,
    group: Option<GroupReading>,
    /// The last members that were told, however long ago that is: who is in a group of which nobody asks, or which is
    /// sharing out its partitions, is who was in it.
    members: Option<GroupReading>,
    pub(super) offsets: GroupOffsets,
    /// Which fields of the Deployment were ours when we wrote it last.
    settled: Option<u64>,
    pub(super) retry: Retry,
    /// Others who write to our Deployment.
    pub(super) contest: Contest,
    /// Whether something is being done.
    is_busy: bool,
    /// What is said.
    pub(super) explanation: Option<Explanation>,
    /// Why the last thing could not be done.
    pub(super) trouble: Option<Trouble>,
    pub(super) last_known_at: Option<Time>,
    known_at: Option<Moment>,
    /// Ready pods that the group does not have.
    outsiders: Outsiders,
}

#[derive(Debug)]
struct Reading {
    at: Moment,
    lag: Lag,
    flags: Vec<Flag>,
    holds: Vec<Hold>,
    /// Why Kafka refuses the operator, with the credentials that the workers have too.
    refused: Option<Arc<str>>,
}

impl RoleState {
    /// Nothing is known but what the status says.
    pub(super) fn new(adoption: Option<&AdoptionStatus>, started: Moment) -> Self {
        Self {
            offsets: GroupOffsets::new(adoption, started),
            ..Self::default()
        }
    }

    /// What is to be read of it.
    pub(super) fn wanted(
        &self,
        plan: &RolePlan,
        workload: &Workload,
        keep_after: Duration,
        now: Moment,
    ) -> Wanted {
        let scale_in_possible = workload.replicas > 0 || !workload.pods.is_empty();
        let offsets_are_due = self.offsets.needs_members(plan, keep_after, now);
        let is_empty = match &self.members {
            Some(GroupReading::Stable { members, .. }) => members.is_empty(),
            _ => true,
        };
        Wanted {
            query: self.query(plan),
            interval: if plan.enabled {
                plan.poll_interval
            } else {
                plan.poll_interval.max(READ_DISABLED_EVERY)
            },
            members: if scale_in_possible || offsets_are_due || !is_empty {
                MembersRead::Always
            } else {
                MembersRead::Rarely
            },
        }
    }

    fn query(&self, plan: &RolePlan) -> Query {
        Query {
            topic: plan.topic.as_str().into(),
            group: plan.group.as_str().into(),
            adoption: self.offsets.adoption_of(plan),
        }
    }

    /// Takes in a reading. One of a question that is not asked any more says nothing.
    pub(super) fn read(&mut self, polled: Polled<RoleKey>, plan: &RolePlan, now: &Time) {
        if polled.query != self.query(plan) {
            return;
        }
        let found = self.offsets.read(&polled, plan);
        if matches!(found.lag, Lag::Known(_)) {
            self.last_known_at = Some(now.clone());
            self.known_at = Some(polled.at);
        }
        self.reading = Some(Reading {
            at: polled.at,
            lag: found.lag,
            flags: found.flags,
            holds: polled.found.holds,
            refused: polled
                .found
                .unread
                .filter(|unread| unread.1 == Cause::Refused)
                .map(|unread| unread.0),
        });
        if matches!(polled.group, GroupReading::Stable { .. }) {
            self.members = Some(polled.group.clone());
        }
        self.group = Some(polled.group);
    }

    /// Forgets what was read: other brokers are asked now.
    pub(super) fn forget_reading(&mut self) {
        self.reading = None;
        self.group = None;
        self.members = None;
        self.offsets.forget_reading();
    }

    /// Notes that nothing can be read, and why.
    pub(super) fn cannot_read(&mut self, why: &Unread, now: Moment) {
        self.offsets.forget_reading();
        self.reading = Some(Reading {
            at: now,
            lag: Lag::Unknown {
                why: Arc::clone(&why.0),
            },
            flags: Vec::new(),
            holds: Vec::new(),
            refused: None,
        });
        self.group = None;
    }

    /// The last reading: its lag and what is odd about offsets.
    pub(super) fn lag(&self) -> Option<(&Lag, &[Flag])> {
        self.reading
            .as_ref()
            .map(|reading| (&reading.lag, &reading.flags[..]))
    }

    /// How long ago lag was last read whole.
    pub(super) fn lag_age(&self, now: Moment) -> Option<Duration> {
        self.known_at.map(|at| now.since(at))
    }

    /// The members of its group that are workers of the role, by their pods' names.
    fn workers(&self, workload: &Workload, ids: &WorkerIds) -> GroupReading {
        let group = self.group.as_ref();
        group.map_or(GroupReading::NotRead, |group| ids.workers(group, workload))
    }

    /// Dependencies that refuse workers, as far as that is known.
    pub(super) fn refusals(&self, plan: &RolePlan, now: Moment) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        if let Some(reading) = &self.reading {
            refusals.extend(reading.refused.as_deref().map(refused_by_kafka));
            refusals.extend(reported(&reading.holds));
        }
        let session = plan.timings.session_timeout;
        refusals.extend(self.outsiders.refusal(&plan.group, self.ready(), session, now));
        refusals
    }

    /// Why no worker is added now: one reports a refusal, or none of those that are ready has joined the group.
    fn held(&self, plan: &RolePlan, now: Moment) -> Option<Arc<str>> {
        let reported = self.reading.as_ref().and_then(|reading| oldest(&reading.holds));
        let session = plan.timings.session_timeout;
        reported.or_else(|| {
            let outside = self.outsiders.are_all(self.ready(), session, now);
            outside.then(|| "no ready worker is a member of the consumer group".into())
        })
    }

    fn ready(&self) -> u32 {
        self.explanation
            .as_ref()
            .map_or(0, |explanation| explanation.pods.ready)
    }

    /// The last members that were told.
    pub(super) fn members(&self) -> Option<&GroupReading> {
        self.members.as_ref()
    }

    /// How offsets were taken over.
    pub(super) fn adoption(&self) -> Option<&AdoptionStatus> {
        self.offsets.adoption()
    }

    /// Decides, and gives what to do now: nothing while something is being done or while a failure is waited out, and
    /// nothing before the first reading but to deploy.
    pub(super) fn next(
        &mut self,
        around: Surroundings<'_>,
        workload: Workload,
        conflict: Option<Arc<str>>,
        now: Moment,
    ) -> Option<Step> {
        self.rollout.note(&workload, now);
        self.stuck = stuck_terminating(&workload);
        let workers = self.workers(&workload, around.worker_ids);
        let ready = workload.pods.iter().filter(|pod| pod.state == PodState::Ready);
        self.outsiders
            .note(&ready.map(|pod| &pod.name).collect(), &workers);
        if self.is_busy {
            return None;
        }
        let replicas = workload.replicas;
        let group = match &conflict {
            Some(_) => Group::Shared,
            None => Group::Ours,
        };
        self.offsets.remember(around.plan, &workload);
        let decision = self.decide(around.plan, workers, workload, conflict, now);
        let what = Decided {
            write: decision.and_then(|decision| {
                self.history = decision.history;
                decision.plan.into_iter().next()
            }),
            replicas,
            group,
        };
        self.contest.forget(now);
        let is_edited = self.is_edited(around);
        let step = if self.retry.is_over(now) && (!is_edited || self.contest.may_put_back(now)) {
            self.step(around, now, &what)
        } else {
            None
        };
        if is_edited && step.is_some() {
            self.contest.put_back(now);
        }
        self.executing = match &step {
            Some(Step::Deploy { replicas }) if *replicas != what.replicas => {
                Some(Write::SetReplicas(*replicas))
            }
            Some(Step::Annotate { .. }) => what.write,
            _ => None,
        };
        self.is_busy = step.is_some();
        step
    }

    fn decide(
        &mut self,
        plan: &RolePlan,
        group: GroupReading,
        workload: Workload,
        conflict: Option<Arc<str>>,
        now: Moment,
    ) -> Option<Decision> {
        let reading = self.reading.as_ref()?;
        let observation = Observation {
            lag: LagReading {
                at: reading.at,
                lag: reading.lag.clone(),
            },
            group,
            workload,
            conflict,
            held: self.held(plan, now),
        };
        let decision = decide(&self.policy(plan), &observation, self.history.clone(), now);
        self.explanation = Some(decision.explanation.clone());
        Some(decision)
    }

    /// Before offsets are initialised no worker starts, whatever the bounds ask for.
    fn policy(&self, plan: &RolePlan) -> Policy {
        let max = plan.policy.bounds.max();
        match Bounds::new(0..=max) {
            Some(bounds) if !self.offsets.is_initialized(plan) => Policy {
                bounds,
                ..plan.policy
            },
            _ => plan.policy,
        }
    }

    fn step(&self, around: Surroundings<'_>, at: Moment, what: &Decided) -> Option<Step> {
        let Decided {
            write,
            replicas,
            group,
        } = what;
        // Not before the status says so: another leader must not initialize offsets again. Not before they are those of
        // this topic either, while that can be done: the first worker would make them final.
        let adopted = self.offsets.is_initialized(around.plan)
            && self.offsets.is_written(around.written_adoption)
            && !self.offsets.is_unready(around.plan);
        let wanted = match write {
            Some(Write::SetReplicas(wanted)) if adopted => Some(*wanted),
            _ => None,
        };
        let is_safe = *replicas == 0 || adopted && !self.starts_elsewhere(around);
        if !self.is_deployed(around) && is_safe {
            // A new template never comes with fewer replicas: Kubernetes would split the reduction over both templates.
            return Some(Step::Deploy {
                replicas: wanted.map_or(*replicas, |wanted| wanted.max(*replicas)),
            });
        }
        if *group == Group::Shared {
            return None;
        }
        if let Some(adopt) = self.offsets.adopt(around.plan) {
            return Some(Step::Adopt(adopt));
        }
        if let Some(commits) = self.offsets.restore() {
            return Some(Step::Restore(commits));
        }
        if !adopted || !is_safe {
            return None;
        }
        match write {
            Some(Write::Annotate(pods)) => Some(Step::Annotate {
                pods: pods.clone(),
                marked: Marked::Yes,
            }),
            Some(Write::Unannotate(pods)) => Some(Step::Annotate {
                pods: pods.clone(),
                marked: Marked::No,
            }),
            Some(Write::SetReplicas(replicas)) => Some(Step::Deploy { replicas: *replicas }),
            None => self
                .offsets
                .keep(around.plan, around.keep_after, at)
                .map(Step::Keep),
        }
    }

    /// Whether new pods would connect to other brokers than those that run, and it is not known yet that offsets are
    /// initialized there.
    fn starts_elsewhere(&self, around: Surroundings<'_>) -> bool {
        let servers = around.deployment.and_then(|seen| seen.servers.as_deref());
        servers != Some(around.servers) && self.offsets.relation(around.plan) != Some(Relation::Same)
    }

    /// Whether the Deployment is there, made of the plan, ours, and as we left it.
    fn is_deployed(&self, around: Surroundings<'_>) -> bool {
        let Some(seen) = around.deployment else {
            return false;
        };
        let settled = match self.settled {
            Some(fields) => seen.our_fields == Some(fields),
            // After a restart: nobody else wrote to it, as far as it tells.
            None => !seen.is_edited,
        };
        settled
            && seen.manifest_hash.as_deref() == Some(around.manifest_hash)
            && seen.owner.as_deref() == Some(around.pool_uid)
    }

    /// Whether somebody else wrote to fields of ours since we did.
    fn is_edited(&self, around: Surroundings<'_>) -> bool {
        let seen = around.deployment;
        self.settled
            .zip(seen)
            .is_some_and(|(settled, seen)| seen.our_fields != Some(settled))
    }

    /// What was begun was done by `now`.
    pub(super) fn done(&mut self, now: Moment) {
        if let Some(write) = self.executing.take() {
            self.history.executed(&write, now);
        }
        self.is_busy = false;
        self.trouble = None;
        self.retry.succeeded();
    }

    /// What was begun could not be done, as far as we know: an answer may have been lost. A scale-up is simply decided
    /// again; all else counts as done, which only makes the next decision wait for newer readings.
    pub(super) fn failed(&mut self, trouble: Option<Trouble>, pause: super::retry::Pause, now: Moment) {
        let before = self.explanation.as_ref().map(|explanation| explanation.current);
        match self.executing.take() {
            Some(Write::SetReplicas(replicas)) if before.is_some_and(|before| replicas > before) => {}
            Some(write) => self.history.executed(&write, now),
            None => {}
        }
        self.is_busy = false;
        self.trouble = trouble;
        self.retry.failed(pause, now);
    }

    /// What was begun was refused, for it rested on an older Deployment.
    pub(super) fn outdated(&mut self, now: Moment) {
        self.executing = None;
        self.is_busy = false;
        self.trouble = None;
        self.retry.failed(super::retry::Pause::None, now);
    }

    /// Our Deployment was written.
    pub(super) fn deployed(&mut self, seen: &DeploymentSeen) {
        self.settled = seen.our_fields;
    }

    /// Offsets were initialised.
    pub(super) fn adopted(&mut self, adoption: AdoptionStatus, now: Moment) {
        self.offsets.adopted(adoption, now);
        // What was read before counted otherwise.
        self.reading = None;
        self.group = None;
    }

    /// Offsets were committed again.
    pub(super) fn kept(&mut self, now: Moment) {
        self.offsets.kept(now);
    }

    /// Remembered offsets were committed.
    pub(super) fn restored(&mut self, now: Moment) {
        self.offsets.restored(now);
        // What was read before counted otherwise.
        self.reading = None;
        self.group = None;
    }

    /// For a role that the pool does not have any more: its workers finish what they hold, and go. Its offsets are kept, so
    /// that nothing is skipped or repeated when the pool has it again.
    pub(super) fn stand_down(
        &mut self,
        plan: &RolePlan,
        workload: &Workload,
        keep_after: Duration,
        now: Moment,
    ) -> Option<Step> {
        if self.is_busy || !self.retry.is_over(now) {
            return None;
        }
        self.offsets.remember(plan, workload);
        let step = if workload.replicas > 0 {
            Some(Step::Deploy { replicas: 0 })
        } else {
            self.offsets.keep(plan, keep_after, now).map(Step::Keep)
        };
        self.is_busy = step.is_some();
        step
    }
}

#[cfg(test)]
mod offset_tests;
#[cfg(test)]
mod tests;
