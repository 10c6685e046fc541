//! One pool: its plan, its Kafka cluster, its roles, its status and events. Pure, except for the poller that it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;

use super::api_state::ApiState;
use super::clusters::OpenCluster;
use super::conflicts::{GroupUses, WorkerIds};
use super::identity::GroupProof;
use super::learning::Learning;
use super::retry::Retry;
use super::role::RoleState;
use super::staging::{ApiPods, DeployedStaging, StagingChange, StagingObservation};
use crate::apply::{Manifest, api_objects, grace_period_warning};
use crate::crd::{EffectiveSettings, LagState, RoleStatus, SeparationPool, SeparationPoolStatus};
use crate::decide::{Lag, Moment};
use crate::events::{EventPolicy, EventText, EventWriter, PoolFact, RoleFacts, Scaled};
use crate::metrics::{Metrics, RoleMetrics, RoleSample};
use crate::observe::poller::Polled;
use crate::observe::workload::{DeploymentSnapshot, PodSnapshot, WorkloadProblem};
use crate::plan::{PoolId, PoolPlan, Problems, Role, Staging};
use crate::settings::WorkerSettings;
use crate::status::{self, ApiReport, PendingChange, PoolReport, RoleReport, WriteDue};
use crate::watch::cache::{Cache, PoolSnapshot, RoleKey};

/// The state of a pool's access to its Kafka cluster.
#[derive(Debug, Clone, Default)]
pub(super) enum ClusterAccess {
    /// Its Secrets are being read.
    #[default]
    Pending,
    /// A Secret is missing or unusable; its roles report why.
    Missing,
    /// The cluster is being read.
    Open(Arc<OpenCluster>),
}

/// The state of a pool.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) id: Arc<PoolId>,
    pub(super) uid: Arc<str>,
    generation: Option<i64>,
    pub(super) owner: Option<Arc<OwnerReference>>,
    /// The plan of the last valid spec.
    pub(super) plan: Option<Arc<PoolPlan>>,
    /// The staging storage in its Deployments.
    planned_staging: [Option<Staging>; 2],
    /// Why the current spec is invalid, if it is.
    pub(super) invalid_spec: Option<Problems>,
    pub(super) access: ClusterAccess,
    roles: [RoleState; 2],
    /// The last planned Deployments, with their hashes.
    manifests: [Option<(Manifest, Arc<str>)>; 2],
    pub(super) status: StatusState,
    /// When lag that is unknown now was last known, if that is recent: the pool is no longer ready once it is not,
    /// without any event.
    unknown_since: Option<Time>,
    pub(super) api: ApiState,
    staging: StagingChange,
    metrics: [Option<RoleMetrics>; 2],
    event_state: EventState,
}

/// State of the pool's Kubernetes events.
#[derive(Debug, Default)]
struct EventState {
    pool: EventPolicy,
    roles: [EventPolicy; 2],
    /// Writes without an event yet.
    scaled: [Option<Scaled>; 2],
    adopted: [bool; 2],
    /// Warnings about a new spec without an event yet.
    warnings: Vec<String>,
}

/// Writes of a pool's status.
#[derive(Debug, Default)]
pub(super) struct StatusState {
    pub(super) is_busy: bool,
    pub(super) retry: Retry,
    pub(super) written_at: Option<Moment>,
}

impl StatusState {
    /// Time since this process last wrote the status; `Duration::MAX` if it never did, even in its first seconds.
    fn since_write(&self, now: Moment) -> Duration {
        self.written_at.map_or(Duration::MAX, |at| now.since(at))
    }
}

impl PoolState {
    pub(super) fn new(id: &Arc<PoolId>, snapshot: &PoolSnapshot, now: Moment) -> Self {
        let status = snapshot.status.as_deref();
        let adoption = |role: Role| status.and_then(|status| role_status(status, role)?.offsets.as_ref());
        Self {
            id: Arc::clone(id),
            uid: Arc::clone(&snapshot.uid),
            generation: None,
            owner: None,
            plan: None,
            planned_staging: [None, None],
            invalid_spec: None,
            access: ClusterAccess::default(),
            roles: Role::ALL.map(|role| {
                let mut state = RoleState::new(adoption(role), now);
                let written = status.and_then(|status| role_status(status, role));
                state.last_known_time = written.and_then(last_known_time);
                if let Some(estimates) = written.and_then(|written| written.estimates.as_ref()) {
                    state.learning = Learning::restored(status::learned(estimates));
                }
                state
            }),
            manifests: [None, None],
            status: StatusState::default(),
            unknown_since: None,
            api: ApiState::default(),
            staging: StagingChange::default(),
            metrics: [None, None],
            event_state: EventState::default(),
        }
    }

    /// Validates the spec if its generation changed.
    pub(super) fn plan(&mut self, snapshot: &PoolSnapshot, settings: &Arc<WorkerSettings>) {
        if self.generation == snapshot.generation && (self.plan.is_some() || self.invalid_spec.is_some()) {
            return;
        }
        self.generation = snapshot.generation;
        self.owner = snapshot.owner.clone().map(Arc::new);
        self.manifests = [None, None];
        // Earlier failures concern another spec.
        self.status.retry.succeeded();
        self.api.retry.succeeded();
        self.api.planned = None;
        for role in &mut self.roles {
            role.retry.succeeded();
        }
        let checked = snapshot.plan.clone().and_then(|plan| {
            let mut staging = [None, None];
            let mut warnings = Vec::new();
            for role in Role::ALL {
                let deployment =
                    Manifest::new(Arc::clone(&plan), role, Arc::clone(settings)).deployment(0)?;
                staging[role as usize] = DeploymentSnapshot::from_deployment(&deployment).staging;
                let warning = grace_period_warning(&deployment).filter(|_| plan.role(role).enabled);
                warnings.extend(warning.map(|warning| format!("{role}: {warning}")));
            }
            if let Some(api) = &plan.api {
                api_objects(&plan, api, None, settings, None)?;
            }
            Ok((plan, staging, warnings))
        });
        match checked {
            Ok((plan, staging, warnings)) => {
                self.plan = Some(plan);
                self.planned_staging = staging;
                self.invalid_spec = None;
                let observed = snapshot
                    .status
                    .as_ref()
                    .and_then(|status| status.observed_generation);
                // A leader before this one wrote the events of a generation that it observed.
                if observed != snapshot.generation {
                    self.event_state.warnings = warnings;
                }
            }
            Err(problems) => self.invalid_spec = Some(problems),
        }
    }

    pub(super) fn key(&self, role: Role) -> RoleKey {
        RoleKey {
            pool: Arc::clone(&self.id),
            role,
        }
    }

    pub(super) fn role_ref(&self, role: Role) -> &RoleState {
        &self.roles[role as usize]
    }

    pub(super) fn role(&mut self, role: Role) -> &mut RoleState {
        &mut self.roles[role as usize]
    }

    /// For each role, where the group was read, and whether it is proven that the pool uses it.
    pub(super) fn group_uses(&self, plan: &PoolPlan, proof: GroupProof) -> GroupUses {
        Role::ALL.map(|role| self.role_ref(role).offsets.group_use(plan.role(role), proof))
    }

    /// Applies a reading of a role.
    pub(super) fn read(&mut self, polled: Polled<RoleKey>, plan: &PoolPlan, time: &Time) {
        let role = polled.key.role;
        let ids = WorkerIds::new(&self.key(role), &self.uid);
        let state = self.role(role);
        state.read(polled, plan.role(role), time);
        if ids.include_members(state.members()) {
            state.offsets.workers_joined(plan.role(role));
        }
    }

    /// The hash of a role's planned Deployment; cached until the spec changes.
    pub(super) fn manifest_hash(&mut self, manifest: &Manifest) -> Arc<str> {
        let last = &mut self.manifests[manifest.role as usize];
        if let Some((known, hash)) = last
            && (known.rollout, &known.secrets_hash) == (manifest.rollout, &manifest.secrets_hash)
            && known.plan.storage.staging == manifest.plan.storage.staging
        {
            return Arc::clone(hash);
        }
        let hash = manifest.hash();
        *last = Some((manifest.clone(), Arc::clone(&hash)));
        hash
    }

    /// The plan as far as it may be applied during a change of the staging storage: with the previous location, and without
    /// pods of the API.
    pub(super) fn with_current_staging(
        &mut self,
        plan: Arc<PoolPlan>,
        cache: &Cache,
        now: Moment,
    ) -> Arc<PoolPlan> {
        let planned = |key: &RoleKey| self.planned_staging[key.role as usize].as_ref();
        let keys = Role::ALL.map(|role| self.key(role));
        let enabled = keys.iter().filter(|key| plan.role(key.role).enabled);
        let deployed = enabled.filter_map(|key| {
            Some(DeployedStaging {
                location: cache.deployment(key)?.staging.as_ref()?,
                planned: planned(key),
            })
        });
        let is_previous = |key: &RoleKey, pod: &PodSnapshot| {
            pod.pod.is_some() && pod.staging.is_some() && pod.staging.as_ref() != planned(key)
        };
        let has_previous = |key: &RoleKey| cache.pods(key).any(|(_, pod)| is_previous(key, pod));
        let empty = keys.iter().filter_map(|key| {
            if plan.role(key.role).enabled {
                return Some(self.roles[key.role as usize].empty_period());
            }
            // The pods of a disabled role finish their tasks.
            let has_pods = cache.pods(key).any(|(_, pod)| pod.pod.is_some());
            has_pods.then_some(None)
        });
        let observed = StagingObservation {
            deployed: deployed.collect(),
            has_previous_workers: keys.iter().any(has_previous),
            api: self.api_pods(cache),
            empty: empty.collect(),
        };
        let kept = self.staging.kept(&observed, now);
        let stops_api = self.staging.stops_api();
        if kept.is_none() && !stops_api {
            return plan;
        }
        let mut current = PoolPlan::clone(&plan);
        if let Some(kept) = kept {
            current.storage.staging = kept;
        }
        if let Some(api) = current.api.as_mut().filter(|_| stops_api) {
            api.replicas = 0;
        }
        Arc::new(current)
    }

    fn api_pods(&self, cache: &Cache) -> ApiPods {
        let api = cache.api(&self.id).filter(|api| api.object.belongs_to(&self.uid));
        let is_busy = self.api.is_busy();
        // A write in progress may create it.
        if api.map_or(is_busy, |api| api.deployment.replicas > 0) {
            return ApiPods::Wanted;
        }
        let counts = api.and_then(|api| api.deployment.status);
        let is_unobserved = counts.is_some_and(|counts| !counts.observed);
        let has_pods = cache.api_pods(&self.id).any(|pod| pod.pod.is_some());
        if is_busy || is_unobserved || has_pods {
            ApiPods::Ending
        } else {
            ApiPods::None
        }
    }

    /// Stops reading its roles: their metrics have no values of readings until they are read again.
    pub(super) fn stop_reading(&self) {
        self.metrics.iter().flatten().for_each(RoleMetrics::not_read);
        if let ClusterAccess::Open(open_cluster) = &self.access {
            for role in Role::ALL {
                open_cluster.poller.remove(&self.key(role));
            }
        }
    }

    /// The status to write now, if any.
    pub(super) fn due_status(
        &mut self,
        cache: &Cache,
        snapshot: &PoolSnapshot,
        now: Moment,
        time: &Time,
    ) -> Option<SeparationPoolStatus> {
        self.unknown_since = self.earliest_recent_lag(time);
        if self.status.is_busy || !self.status.retry.may_attempt(now) {
            return None;
        }
        let report = self.report(cache, now)?;
        let before = snapshot.status.as_deref();
        let mut after = status::status(&report, before, self.generation, time);
        self.keep_disabled_roles(&mut after, before);
        let since = self.status.since_write(now);
        (status::write_due(before, &after, since) == WriteDue::Yes).then_some(after)
    }

    /// The earliest time at which a lag that is unknown now was last known, among those that are recent.
    fn earliest_recent_lag(&self, time: &Time) -> Option<Time> {
        let is_known = |role: &&RoleState| matches!(role.lag(), Some((Lag::Known(_), _)));
        let unknown = self.roles.iter().filter(|role| !is_known(role));
        let last_known = unknown.filter_map(|role| role.last_known_time.as_ref());
        let recent = last_known.filter(|last_known| status::is_recent(last_known, time));
        recent.min().cloned()
    }

    /// Keeps the adoption and the learned times of disabled roles in the status, because they may be enabled again.
    fn keep_disabled_roles(&self, status: &mut SeparationPoolStatus, before: Option<&SeparationPoolStatus>) {
        let Some(plan) = self.plan.as_ref().filter(|_| self.invalid_spec.is_none()) else {
            return;
        };
        for role in Role::ALL.into_iter().filter(|role| !plan.role(*role).enabled) {
            let adoption = self.roles[role as usize].adoption().cloned();
            let estimates = before.and_then(|before| role_status(before, role)?.estimates.clone());
            let kept = adoption.map(|adoption| RoleStatus {
                offsets: Some(adoption),
                estimates,
                ..RoleStatus::default()
            });
            match role {
                Role::Processor => status.processor = kept,
                Role::Uploader => status.uploader = kept,
            }
        }
    }

    /// The report for the status; `None` until every enabled role has a reading or an error.
    pub(super) fn report(&self, cache: &Cache, now: Moment) -> Option<PoolReport> {
        if let Some(problems) = &self.invalid_spec {
            return Some(PoolReport::Refused(problems.clone()));
        }
        let plan = self.plan.as_ref()?;
        let mut reports = Vec::new();
        for role in Role::ALL.into_iter().filter(|role| plan.role(*role).enabled) {
            let state = &self.roles[role as usize];
            let (lag, anomalies) = state.lag()?;
            reports.push(RoleReport {
                role,
                explanation: state.explanation.clone()?,
                lag: lag.clone(),
                anomalies: anomalies.to_vec(),
                last_known_time: state.last_known_time.clone(),
                task: plan.role(role).declared.task,
                learned: state.learning.summary(),
                offsets: state.adoption().cloned(),
                pending: self.pending_change(role, cache),
                effective: self.effective(plan, role),
                problems: role_problems(state, cache, &self.key(role), now),
                refusals: state.refusals(plan.role(role), now),
            });
        }
        let problems = api_problems(&self.api, cache, &self.id, now);
        let disabled = Role::ALL.into_iter().filter(|role| !plan.role(*role).enabled);
        let stuck = disabled.filter_map(|role| Some((role, self.roles[role as usize].stuck.clone()?)));
        Some(PoolReport::Running {
            roles: reports,
            stuck: stuck.collect(),
            api: ApiReport {
                is_stopped: self.staging.stops_api() && plan.api.is_some(),
                ..self.api.report(plan, cache.api(&self.id), problems)
            },
        })
    }

    /// The part of the spec that a role's pods do not have yet: its Deployment waits, is about to be written, or is being
    /// rolled out.
    fn pending_change(&self, role: Role, cache: &Cache) -> Option<PendingChange> {
        if self.staging.is_waiting() {
            return Some(PendingChange::Staging);
        }
        let planned = self.manifests[role as usize].as_ref().map(|(_, hash)| &**hash);
        let written = cache.deployment(&self.key(role));
        let is_other = written.is_some_and(|written| written.manifest_hash.as_deref() != planned);
        let is_rolling_out = is_other || self.roles[role as usize].rollout.is_in_progress();
        is_rolling_out.then_some(PendingChange::RollingOut)
    }

    fn effective(&self, plan: &PoolPlan, role: Role) -> EffectiveSettings {
        let role_plan = plan.role(role);
        let settings = self.manifests[role as usize]
            .as_ref()
            .map(|(manifest, _)| &manifest.settings);
        let or_default = |named: Option<&String>, default: fn(&WorkerSettings) -> &String| {
            let default = settings.map(|settings| default(settings));
            named.or(default).cloned().unwrap_or_default()
        };
        let (model, execution_provider) = match role {
            Role::Processor => (
                or_default(plan.model.as_ref().map(|model| &model.name), |settings| {
                    &settings.model.name
                }),
                plan.provider.0.to_uppercase(),
            ),
            Role::Uploader => Default::default(),
        };
        EffectiveSettings {
            image: or_default(role_plan.pod.image.as_ref(), |settings| &settings.image),
            model,
            execution_provider,
            target: role_plan.policy.target.to_string(),
            region: plan.storage.s3.region.clone().unwrap_or_default(),
        }
    }

    /// Updates a role's metrics from its last decision; a disabled role has none.
    pub(super) fn update_metrics(&mut self, role: Role, metrics: &Metrics, now: Moment) {
        let (state, role_metrics) = (&self.roles[role as usize], &mut self.metrics[role as usize]);
        let plan = self.plan.as_ref().map(|plan| plan.role(role));
        let Some(plan) = plan.filter(|plan| plan.enabled) else {
            *role_metrics = None;
            return;
        };
        if let (Some(explanation), Some((lag, _))) = (&state.explanation, state.lag()) {
            let sample = RoleSample {
                lag,
                lag_age: state.lag_age(now),
                oldest_age: state.oldest_age(now),
                non_members: state.non_members(plan, now),
                target: plan.policy.target,
                task: state.estimates.map(|estimates| estimates.task),
            };
            let role_metrics = role_metrics.get_or_insert_with(|| metrics.role(&self.id, role));
            role_metrics.decided(explanation, &sample);
            if let Some(estimates) = state.estimates {
                role_metrics.estimated(estimates);
            }
        }
    }

    /// Records a write of replicas, for metrics and events.
    pub(super) fn wrote_replicas(&mut self, role: Role, from: u32, to: u32) {
        if from == to {
            return;
        }
        self.event_state.scaled[role as usize] = Some(Scaled { from, to });
        if let Some(metrics) = &self.metrics[role as usize] {
            metrics.wrote_replicas(from, to);
        }
    }

    /// Records that a role's offsets were initialized, for its event.
    pub(super) fn adopted(&mut self, role: Role) {
        self.event_state.adopted[role as usize] = true;
    }

    /// Writes the Kubernetes events that are due for a role.
    pub(super) fn record_role_events(
        &mut self,
        role: Role,
        cache: &Cache,
        events: &EventWriter,
        now: Moment,
    ) {
        let about = self.reference();
        let problems = role_problems(&self.roles[role as usize], cache, &self.key(role), now);
        let state = &self.roles[role as usize];
        let (Some(explanation), Some((_, anomalies))) = (&state.explanation, state.lag()) else {
            return;
        };
        let adopted = std::mem::take(&mut self.event_state.adopted[role as usize]);
        let facts = RoleFacts {
            role,
            explanation,
            anomalies,
            scaled: self.event_state.scaled[role as usize].take(),
            adopted: state.adoption().filter(|_| adopted),
            problems: &problems,
        };
        for text in self.event_state.roles[role as usize].role(&facts, now) {
            events.queue(about.clone(), text);
        }
    }

    /// Writes the Kubernetes events that are due for the API.
    pub(super) fn record_api_events(&mut self, cache: &Cache, events: &EventWriter, now: Moment) {
        let problems = api_problems(&self.api, cache, &self.id, now);
        for text in self.event_state.pool.api(&problems, now) {
            events.queue(self.reference(), text);
        }
    }

    /// Writes a Kubernetes event about the pool, if it is due.
    pub(super) fn record_event(&mut self, fact: PoolFact<'_>, events: &EventWriter, now: Moment) {
        if let Some(text) = self.event_state.pool.pool(fact, now) {
            events.queue(self.reference(), text);
        }
    }

    /// Writes the Kubernetes events about a new spec.
    pub(super) fn record_warnings(&mut self, events: &EventWriter) {
        for note in std::mem::take(&mut self.event_state.warnings) {
            events.queue(self.reference(), EventText::long_grace_period(note));
        }
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(SeparationPool::api_version(&()).into_owned()),
            kind: Some(SeparationPool::kind(&()).into_owned()),
            name: Some(self.id.name.clone()),
            namespace: Some(self.id.namespace.clone()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }

    /// Whether a retry is due, or the status changes by time alone.
    pub(super) fn is_due(&self, now: Moment, time: &Time) -> bool {
        let is_overdue = |since: &Time| !status::is_recent(since, time);
        self.unknown_since.as_ref().is_some_and(is_overdue)
            || self.status.retry.is_due(now)
            || self.api.retry.is_due(now)
            || self.roles.iter().any(|role| role.retry.is_due(now))
    }
}

/// The wall-clock time in whole seconds, the precision that the API server stores.
pub(super) fn wall_clock_time() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// When lag was last known, from the status that another leader wrote: while it is known, the time of this start.
fn last_known_time(status: &RoleStatus) -> Option<Time> {
    let lag = status.lag.as_ref()?;
    match lag.state {
        LagState::Known => Some(wall_clock_time()),
        LagState::Partial | LagState::Unknown => lag.last_known_time.clone(),
    }
}

/// The role's problems for a user to fix, one for each reason.
fn role_problems(state: &RoleState, cache: &Cache, key: &RoleKey, now: Moment) -> Vec<WorkloadProblem> {
    let pods = cache.pods(key).filter_map(|(_, pod)| pod.problem.as_ref());
    let deployment = cache
        .deployment(key)
        .and_then(|deployment| deployment.problem.as_ref());
    let ours = [
        state.field_manager_conflict.problem(),
        state.rollout.problem(now),
        state.stuck.clone(),
    ];
    let ours = state.problem.iter().chain(ours.iter().flatten());
    one_for_each_reason(ours.chain(deployment).chain(pods))
}

/// The API's problems for a user to fix, one for each reason.
fn api_problems(state: &ApiState, cache: &Cache, id: &Arc<PoolId>, now: Moment) -> Vec<WorkloadProblem> {
    let ours = state.problems();
    let pods = cache.api_pods(id).filter_map(|pod| pod.problem.as_ref());
    let deployment = cache.api(id).and_then(|api| api.deployment.problem.as_ref());
    let mut problems = one_for_each_reason(ours.iter().chain(deployment).chain(pods));
    if problems.is_empty() {
        // The others are its causes.
        problems.extend(state.unready_problem(now));
    }
    problems
}

fn one_for_each_reason<'a>(problems: impl Iterator<Item = &'a WorkloadProblem>) -> Vec<WorkloadProblem> {
    let mut each: BTreeMap<&str, &WorkloadProblem> = BTreeMap::new();
    for problem in problems {
        each.entry(&problem.reason).or_insert(problem);
    }
    each.into_values().cloned().collect()
}

pub(super) fn role_status(status: &SeparationPoolStatus, role: Role) -> Option<&RoleStatus> {
    match role {
        Role::Processor => status.processor.as_ref(),
        Role::Uploader => status.uploader.as_ref(),
    }
}

#[cfg(test)]
mod staging_tests;
#[cfg(test)]
mod tests;
