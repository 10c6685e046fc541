//! One role of a pool: its state, and its next step. Pure.
//!
//! One step is done at a time, in this order: the Deployment as planned, offsets before the first worker, then the
//! first write of the decision's plan. The history advances when a write is done; the rest of the plan is decided
//! again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use separation_kafka::{ReadError, ReadErrorKind};

use super::conflicts::WorkerIds;
use super::group_offsets::{Adopt, GroupOffsets};
use super::learning::Learning;
use super::retry::{FieldManagerConflict, Retry};
use super::rollout::RolloutProgress;
use super::staging::{Emptiness, EmptyPeriod};
use crate::apply::offsets::Commits;
use crate::crd::OffsetsStatus;
use crate::decide::{
    Estimates, Explanation, GroupReading, History, Lag, LagReading, Moment, Observation, PodState, Policy,
    Queue, ReplicaLimits, Workload, Write, decide,
};
use crate::observe::dependencies::{
    NonMembers, Refusal, oldest_refusal, refused_by_kafka, reported_refusals,
};
use crate::observe::poller::{MembersRead, Polled, RoleQuery};
use crate::observe::workload::{DeploymentSnapshot, WorkloadProblem, stuck_terminating};
use crate::observe::{OffsetAnomaly, Query, TopicRelation};
use crate::plan::RolePlan;
use crate::watch::cache::RoleKey;
use separation_contract::offset_metadata::Hold;

/// How often a disabled role is read, only to keep its offsets from expiring.
const DISABLED_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Kafka's error code of a topic that does not exist.
const UNKNOWN_TOPIC: i16 = 3;

/// What is done next for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Execute a write. [`Write::SetReplicas`] writes the Deployment as planned, even if its replicas do not change.
    Write(Write),
    /// Create its topic, which does not exist, with this number of partitions.
    CreateTopic(u32),
    /// Initialize its group's offsets, and record that in the status.
    Adopt(Adopt),
    /// Commit the offsets recorded in the status, for a group that has lost all of its offsets.
    Restore(Commits),
    /// Commit the first offsets in place of those that are beyond the end of a topic without an id.
    Replace(Commits),
    /// Commit the current offsets of these partitions again, so that they do not expire.
    Recommit(Vec<i32>),
}

/// The inputs of a role's decision that are not part of its state.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoleInputs<'a> {
    pub(super) plan: &'a RolePlan,
    /// The planned bootstrap servers of its workers.
    pub(super) servers: &'a str,
    /// Its Deployment, as last observed.
    pub(super) deployment: Option<&'a DeploymentSnapshot>,
    /// The hash of its planned Deployment.
    pub(super) manifest_hash: &'a str,
    /// Uid of the pool.
    pub(super) pool_uid: &'a str,
    /// Identifies its workers among the members of its group.
    pub(super) worker_ids: &'a WorkerIds,
    /// Another pool or client that uses its group.
    pub(super) conflict: Option<&'a Arc<str>>,
    /// The adoption in the pool's status.
    pub(super) written_adoption: Option<&'a OffsetsStatus>,
    /// Time after which the offsets of an idle group are committed again.
    pub(super) recommit_after: Duration,
}

/// The state of a role.
#[derive(Debug, Default)]
pub(super) struct RoleState {
    history: History,
    /// The plan's write in progress.
    executing: Option<Write>,
    /// Progress of a rolling update.
    pub(super) rollout: RolloutProgress,
    /// Pods whose deletion is overdue.
    pub(super) stuck: Option<WorkloadProblem>,
    reading: Option<RoleReading>,
    emptiness: Emptiness,
    group: Option<GroupReading>,
    /// The last members that were read in a stable group, however long ago. They count as the members while the group
    /// is not read, and while it rebalances.
    members: Option<GroupReading>,
    pub(super) offsets: GroupOffsets,
    /// Hash of the fields that the operator owned after its last write of the Deployment.
    owned_fields: Option<u64>,
    pub(super) retry: Retry,
    /// Edits of the Deployment by other field managers.
    pub(super) field_manager_conflict: FieldManagerConflict,
    /// Whether a step is in progress.
    is_busy: bool,
    /// The last decision's explanation.
    pub(super) explanation: Option<Explanation>,
    /// The times that the last decision expected.
    pub(super) estimates: Option<Estimates>,
    /// The learned times.
    pub(super) learning: Learning,
    /// Why the last step failed.
    pub(super) problem: Option<WorkloadProblem>,
    pub(super) last_known_time: Option<Time>,
    known_at: Option<Moment>,
    /// Ready pods that are not members of the group.
    non_members: NonMembers,
}

#[derive(Debug)]
struct RoleReading {
    at: Moment,
    lag: Lag,
    anomalies: Vec<OffsetAnomaly>,
    holds: Vec<Hold>,
    queue: Option<Queue>,
    topic_is_missing: bool,
    /// Why the operator is not authorized to read Kafka.
    refused: Option<Arc<str>>,
}

impl RoleState {
    /// `adoption` is from the pool's status.
    pub(super) fn new(adoption: Option<&OffsetsStatus>, started: Moment) -> Self {
        Self {
            offsets: GroupOffsets::new(adoption, started),
            ..Self::default()
        }
    }

    /// The readings that it needs from Kafka.
    pub(super) fn role_query(
        &self,
        plan: &RolePlan,
        workload: &Workload,
        recommit_after: Duration,
        now: Moment,
    ) -> RoleQuery {
        let scale_down_possible = workload.replicas > 0 || !workload.pods.is_empty();
        let offsets_are_due = self.offsets.needs_members(plan, recommit_after, now);
        let is_empty = match &self.members {
            Some(GroupReading::Stable { members, .. }) => members.is_empty(),
            _ => true,
        };
        RoleQuery {
            query: self.query(plan),
            interval: if plan.enabled {
                plan.lag_check_period
            } else {
                plan.lag_check_period.max(DISABLED_POLL_INTERVAL)
            },
            members: if scale_down_possible || offsets_are_due || !is_empty {
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
            start_deadline: plan.policy.target.start_deadline(),
        }
    }

    /// Applies a reading. One for an outdated query is ignored.
    pub(super) fn read(&mut self, polled: Polled<RoleKey>, plan: &RolePlan, now: &Time) {
        if polled.query != self.query(plan) {
            return;
        }
        self.learning.record_tasks(&polled.result.finished);
        let found = self.offsets.read(&polled, plan);
        self.emptiness
            .record(polled.at, &found.lag, polled.result.offsets.as_ref());
        if matches!(found.lag, Lag::Known(_)) {
            self.last_known_time = Some(now.clone());
            self.known_at = Some(polled.at);
        }
        let unknown_topic = |error: &ReadError| error.kind == ReadErrorKind::Refused(UNKNOWN_TOPIC);
        let topic_is_missing =
            polled.result.topic.is_none() && polled.result.error.as_ref().is_some_and(unknown_topic);
        // It belongs to the lag that was read, and not to one that is counted from other offsets.
        let queue = polled.result.queue.filter(|_| found.lag == polled.result.lag.lag);
        self.reading = Some(RoleReading {
            at: polled.at,
            lag: found.lag,
            anomalies: found.anomalies,
            holds: polled.result.holds,
            queue,
            topic_is_missing,
            refused: polled.result.error.as_ref().and_then(refused),
        });
        if matches!(polled.group, GroupReading::Stable { .. }) {
            self.members = Some(polled.group.clone());
        }
        self.group = Some(polled.group);
    }

    /// Discards all readings, because the pool now uses other brokers.
    pub(super) fn forget_reading(&mut self) {
        self.forget_lag();
        self.members = None;
        self.offsets.forget_reading();
    }

    /// Records that Kafka cannot be read, and why.
    pub(super) fn cannot_read(&mut self, error: &ReadError, now: Moment) {
        self.offsets.forget_reading();
        self.emptiness = Emptiness::default();
        self.reading = Some(RoleReading {
            at: now,
            lag: Lag::Unknown {
                why: Arc::clone(&error.why),
            },
            anomalies: Vec::new(),
            holds: Vec::new(),
            queue: None,
            topic_is_missing: false,
            refused: refused(error),
        });
        self.group = None;
    }

    /// The last reading's lag and its anomalies of offsets.
    pub(super) fn lag(&self) -> Option<(&Lag, &[OffsetAnomaly])> {
        self.reading
            .as_ref()
            .map(|reading| (&reading.lag, &reading.anomalies[..]))
    }

    /// The period without messages up to the last reading; none if there are messages, or their number is unknown.
    pub(super) fn empty_period(&self) -> Option<EmptyPeriod> {
        self.emptiness.period()
    }

    /// How long ago the lag of all partitions was last read.
    pub(super) fn lag_age(&self, now: Moment) -> Option<Duration> {
        self.known_at.map(|at| now.since(at))
    }

    /// Time since the oldest message that is not committed arrived, or with a start deadline the oldest one that does not
    /// run; zero without one, none while unknown.
    pub(super) fn oldest_age(&self, now: Moment) -> Option<Duration> {
        let queue = self.reading.as_ref()?.queue.as_ref()?;
        Some(queue.oldest().map_or(Duration::ZERO, |at| now.since(at)))
    }

    /// Ready pods that have not been members of its group for a session timeout.
    pub(super) fn non_members(&self, plan: &RolePlan, now: Moment) -> u32 {
        self.non_members.count(plan.timings.session_timeout, now)
    }

    /// The members of its group that are workers of the role, under their pods' names.
    fn workers(&self, workload: &Workload, ids: &WorkerIds) -> GroupReading {
        let group = self.group.as_ref();
        group.map_or(GroupReading::NotRead, |group| ids.workers(group, workload))
    }

    /// The known dependencies that refuse workers.
    pub(super) fn refusals(&self, plan: &RolePlan, now: Moment) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        if let Some(reading) = &self.reading {
            refusals.extend(reading.refused.as_deref().map(refused_by_kafka));
            refusals.extend(reported_refusals(&reading.holds));
        }
        let session = plan.timings.session_timeout;
        refusals.extend(self.non_members.refusal(&plan.group, self.ready(), session, now));
        refusals
    }

    /// Why replicas must not be raised: a worker reports a refusal, or no ready worker has joined the group.
    fn held(&self, plan: &RolePlan, now: Moment) -> Option<Arc<str>> {
        let refusal = self
            .reading
            .as_ref()
            .and_then(|reading| oldest_refusal(&reading.holds));
        let session = plan.timings.session_timeout;
        refusal.or_else(|| {
            let outside = self.non_members.include_all_ready(self.ready(), session, now);
            outside.then(|| "no ready worker is a member of the consumer group".into())
        })
    }

    fn ready(&self) -> u32 {
        self.explanation
            .as_ref()
            .map_or(0, |explanation| explanation.pods.ready)
    }

    /// The last members that were read in a stable group.
    pub(super) fn members(&self) -> Option<&GroupReading> {
        self.members.as_ref()
    }

    /// How the group's offsets were initialized.
    pub(super) fn adoption(&self) -> Option<&OffsetsStatus> {
        self.offsets.adoption()
    }

    /// Decides, and returns the next step: none while a step is in progress or a retry is not due, and only a
    /// deployment before the first reading.
    pub(super) fn next(&mut self, inputs: RoleInputs<'_>, workload: Workload, now: Moment) -> Option<Step> {
        self.rollout.record(&workload, now);
        self.stuck = stuck_terminating(&workload);
        let workers = self.workers(&workload, inputs.worker_ids);
        self.learning.record_pods(&workload, &workers, now);
        let ready = workload.pods.iter().filter(|pod| pod.state == PodState::Ready);
        self.non_members
            .record(&ready.map(|pod| &pod.name).collect(), &workers);
        if self.is_busy {
            return None;
        }
        let replicas = workload.replicas;
        self.offsets.record_committed(inputs.plan, &workload);
        let write = self.decide(inputs, workers, workload, now);
        self.field_manager_conflict.forget(now);
        let is_edited = self.is_edited(inputs);
        let step =
            if self.retry.may_attempt(now) && (!is_edited || self.field_manager_conflict.may_revert(now)) {
                self.next_step(inputs, replicas, write, now)
            } else {
                None
            };
        if is_edited && step.is_some() {
            self.field_manager_conflict.record_revert(now);
        }
        self.executing = match &step {
            Some(Step::Write(write)) if *write != Write::SetReplicas(replicas) => Some(write.clone()),
            _ => None,
        };
        self.is_busy = step.is_some();
        step
    }

    /// The first write of the plan; none before the first reading.
    fn decide(
        &mut self,
        inputs: RoleInputs<'_>,
        group: GroupReading,
        workload: Workload,
        now: Moment,
    ) -> Option<Write> {
        let reading = self.reading.as_ref()?;
        let estimates = self.learning.estimates(inputs.plan.declared);
        self.estimates = Some(estimates);
        // Decisions for other targets need no times of arrival.
        let start_deadline = inputs.plan.policy.target.start_deadline();
        let observation = Observation {
            lag: LagReading {
                at: reading.at,
                lag: reading.lag.clone(),
            },
            group,
            workload,
            conflict: inputs.conflict.cloned(),
            refusal: self.held(inputs.plan, now),
            estimates,
            queue: start_deadline.and_then(|_| reading.queue.clone()),
        };
        let history = std::mem::take(&mut self.history);
        let decision = decide(&self.policy(inputs.plan, estimates), &observation, history, now);
        self.history = decision.history;
        self.explanation = Some(decision.explanation);
        decision.plan.into_iter().next()
    }

    /// Before offsets are initialized no worker may start, so `minReplicas` counts as 0.
    fn policy(&self, plan: &RolePlan, estimates: Estimates) -> Policy {
        let policy = plan.policy_with(estimates);
        match ReplicaLimits::new(0..=policy.limits.max()) {
            Some(limits) if !self.offsets.is_initialized(plan) => Policy { limits, ..policy },
            _ => policy,
        }
    }

    /// The next step for a Deployment with these replicas, given the decided write.
    fn next_step(
        &self,
        inputs: RoleInputs<'_>,
        replicas: u32,
        write: Option<Write>,
        at: Moment,
    ) -> Option<Step> {
        // Only after the adoption is in the status, so that another leader does not initialize offsets again; and,
        // while it is possible, only after they were initialized for this topic: the first worker's commits would make
        // them final.
        let adopted = self.offsets.is_initialized(inputs.plan)
            && self.offsets.is_written(inputs.written_adoption)
            && !self.offsets.is_unready(inputs.plan);
        let desired = match write {
            Some(Write::SetReplicas(desired)) if adopted => desired,
            _ => replicas,
        };
        // A changed Deployment with replicas starts pods immediately.
        let is_safe = replicas == 0 || adopted && !self.would_use_other_brokers(inputs);
        if !self.is_deployed(inputs) && is_safe {
            // A new template never comes with fewer replicas: Kubernetes would split the reduction over both templates.
            return Some(Step::Write(Write::SetReplicas(desired.max(replicas))));
        }
        // No offsets are committed for a group that another pool or client uses.
        if inputs.conflict.is_some() {
            return None;
        }
        if self.is_topic_missing() && !self.offsets.is_initialized(inputs.plan) {
            return Some(Step::CreateTopic(inputs.plan.policy.limits.max()));
        }
        if let Some(adopt) = self.offsets.adopt(inputs.plan) {
            return Some(Step::Adopt(adopt));
        }
        if let Some(commits) = self.offsets.restore() {
            return Some(Step::Restore(commits));
        }
        if let Some(commits) = self.offsets.replace(inputs.plan) {
            return Some(Step::Replace(commits));
        }
        if !adopted || !is_safe {
            return None;
        }
        match write {
            Some(write) => Some(Step::Write(write)),
            None => self
                .offsets
                .recommit(inputs.plan, inputs.recommit_after, at)
                .map(Step::Recommit),
        }
    }

    /// Whether the last reading found that the topic does not exist. One that was deleted after its offsets were
    /// initialized is not created again: a user may be about to recreate it.
    fn is_topic_missing(&self) -> bool {
        self.reading
            .as_ref()
            .is_some_and(|reading| reading.topic_is_missing)
    }

    /// Whether new pods would connect to other brokers than the running pods, for which offsets are not yet known to be
    /// initialized.
    fn would_use_other_brokers(&self, inputs: RoleInputs<'_>) -> bool {
        let servers = inputs.deployment.and_then(|snapshot| snapshot.servers.as_deref());
        servers != Some(inputs.servers) && self.offsets.relation(inputs.plan) != Some(TopicRelation::Same)
    }

    /// Whether the Deployment exists, matches the plan, belongs to the pool, and is unchanged since the operator's last
    /// write.
    fn is_deployed(&self, inputs: RoleInputs<'_>) -> bool {
        let Some(snapshot) = inputs.deployment else {
            return false;
        };
        let owned_fields = match self.owned_fields {
            Some(fields) => snapshot.our_fields == Some(fields),
            // After a restart: no other field manager owns fields of its spec.
            None => !snapshot.is_edited,
        };
        owned_fields
            && snapshot.manifest_hash.as_deref() == Some(inputs.manifest_hash)
            && snapshot.owner.as_deref() == Some(inputs.pool_uid)
    }

    /// Whether another field manager has taken fields from the operator since its last write.
    fn is_edited(&self, inputs: RoleInputs<'_>) -> bool {
        let snapshot = inputs.deployment;
        self.owned_fields
            .zip(snapshot)
            .is_some_and(|(owned_fields, snapshot)| snapshot.our_fields != Some(owned_fields))
    }

    /// The topic was created.
    pub(super) fn topic_created(&mut self) {
        self.forget_lag();
    }

    /// The step in progress succeeded.
    pub(super) fn step_succeeded(&mut self, now: Moment) {
        if let Some(write) = self.executing.take() {
            self.history.executed(&write, now);
        }
        self.is_busy = false;
        self.problem = None;
        self.retry.succeeded();
    }

    /// The step in progress failed, or its response was lost. A scale-up is decided again; any other write counts as
    /// done, which only makes the next decision wait for newer readings.
    pub(super) fn step_failed(
        &mut self,
        problem: Option<WorkloadProblem>,
        pause: super::retry::Pause,
        now: Moment,
    ) {
        let before = self.explanation.as_ref().map(|explanation| explanation.current);
        match self.executing.take() {
            Some(Write::SetReplicas(replicas)) if before.is_some_and(|before| replicas > before) => {}
            Some(write) => self.history.executed(&write, now),
            None => {}
        }
        self.is_busy = false;
        self.problem = problem;
        self.retry.failed(pause, now);
    }

    /// The step in progress was refused because it was based on an older Deployment.
    pub(super) fn step_outdated(&mut self, now: Moment) {
        self.executing = None;
        self.is_busy = false;
        self.problem = None;
        self.retry.failed(super::retry::Pause::None, now);
    }

    /// Records the Deployment after the operator's write.
    pub(super) fn deployed(&mut self, snapshot: &DeploymentSnapshot) {
        self.owned_fields = snapshot.our_fields;
    }

    /// Offsets were initialized.
    pub(super) fn adopted(&mut self, adoption: OffsetsStatus, now: Moment) {
        self.offsets.adopted(adoption, now);
        self.forget_lag();
    }

    /// Offsets were restored or replaced.
    pub(super) fn restored(&mut self, now: Moment) {
        self.offsets.restored(now);
        self.forget_lag();
    }

    /// Discards the lag that was read before, which was counted from other offsets.
    fn forget_lag(&mut self) {
        self.reading = None;
        self.emptiness = Emptiness::default();
        self.group = None;
    }

    /// The next step of a disabled role: its workers finish their tasks and end. Its offsets are kept, so that no task
    /// is skipped or repeated when the role is enabled again.
    pub(super) fn disable(
        &mut self,
        plan: &RolePlan,
        workload: &Workload,
        recommit_after: Duration,
        now: Moment,
    ) -> Option<Step> {
        self.stuck = stuck_terminating(workload);
        if self.is_busy || !self.retry.may_attempt(now) {
            return None;
        }
        self.offsets.record_committed(plan, workload);
        let step = if workload.replicas > 0 {
            Some(Step::Write(Write::SetReplicas(0)))
        } else {
            self.offsets
                .recommit(plan, recommit_after, now)
                .map(Step::Recommit)
        };
        self.is_busy = step.is_some();
        step
    }
}

/// Why the operator is not authorized, if that is the error.
fn refused(error: &ReadError) -> Option<Arc<str>> {
    (error.kind == ReadErrorKind::Unauthorized).then(|| Arc::clone(&error.why))
}

#[cfg(test)]
mod offset_tests;
#[cfg(test)]
mod tests;
