//! The leader's state and work: events in, jobs out. All of this state is dropped with the lease; the next leader
//! starts from the cluster and Kafka, and its stabilization begins again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use super::api_writer::{AnnotateOutcome, ApiWriter, DeployOutcome, Failure};
use super::clusters::{Clusters, SettingsLookup};
use super::conflicts::GroupUses;
use super::jobs::{JobResult, Jobs, PoolUid};
use super::pool::{ClusterAccess, PoolState, Variant, role_status};
use super::role::RoleInputs;
use super::secrets::{SecretName, secrets_of};
use super::step::Step;
use super::{Operator, conflicts};
use crate::apply::rollout;
use crate::clock::Clock;
use crate::decide::Moment;
use crate::events::{EventWriter, PoolFact};
use crate::lease::Term;
use crate::metrics::{Metrics, Outcome};
use crate::observe::poller::Polled;
use crate::observe::workload::{DeploymentSnapshot, workload};
use crate::plan::{PoolId, PoolPlan, Role};
use crate::settings::WorkerSettings;
use crate::watch::cache::{Cache, PoolSnapshot, RoleKey, WatchEvent};
use crate::watch::mirror::Change;

/// The most queued rounds of readings: one for each of some clusters.
const READING_QUEUE_SIZE: usize = 8;

/// An event of the leader.
pub(super) enum LeaderEvent {
    /// A round of readings of a cluster.
    Polled(Vec<Polled<RoleKey>>),
    /// A job ended.
    JobEnded(PoolUid, Box<JobResult>),
}

/// The leader's state.
pub(super) struct Leader {
    term: Term,
    clock: Clock,
    workers: Arc<WorkerSettings>,
    keep_offsets_after: Duration,
    metrics: Metrics,
    events: EventWriter,
    jobs: Jobs,
    clusters: Clusters,
    pools: HashMap<Arc<PoolId>, PoolState>,
    /// Roles that are held because another pool uses their group, with the reason.
    held: HashMap<RoleKey, Arc<str>>,
    /// The inputs that `held` was computed from.
    held_inputs: HashMap<Arc<PoolId>, HeldInputs>,
    send_polled: mpsc::Sender<Vec<Polled<RoleKey>>>,
    polled: mpsc::Receiver<Vec<Polled<RoleKey>>>,
}

/// The inputs that can change which pools share a group: a pool's uid, its generation, and the clusters that it uses
/// its groups in. Whether it has initialized offsets matters only when one of these changes, because a held role
/// initializes none.
type HeldInputs = (Arc<str>, Option<i64>, [Option<Arc<str>>; 2]);

impl Leader {
    pub(super) fn new(operator: &Operator, term: Term, clock: Clock) -> Self {
        let (send_polled, polled) = mpsc::channel(READING_QUEUE_SIZE);
        Self {
            term,
            clock,
            workers: Arc::new(operator.workers.clone()),
            keep_offsets_after: operator.keep_offsets_after,
            metrics: operator.metrics.clone(),
            events: operator.events.clone(),
            jobs: Jobs::new(
                ApiWriter::new(operator.client.clone(), operator.leadership.clone()),
                operator.metrics.clone(),
            ),
            clusters: Clusters::new(operator.refresh),
            pools: HashMap::new(),
            held: HashMap::new(),
            held_inputs: HashMap::new(),
            send_polled,
            polled,
        }
    }

    /// The term of this leadership.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> LeaderEvent {
        tokio::select! {
            // `send_polled` is kept in `self`, so the channel never closes.
            Some(polled) = self.polled.recv() => LeaderEvent::Polled(polled),
            (pool_uid, result) = self.jobs.next() => LeaderEvent::JobEnded(pool_uid, Box::new(result)),
        }
    }

    /// Waits for running jobs, at most `max_wait`.
    pub(super) async fn finish(self, max_wait: Duration) {
        if tokio::time::timeout(max_wait, self.jobs.finish()).await.is_err() {
            tracing::warn!("Writes in flight did not finish in time");
        }
    }

    /// Applies an event, and returns the pools to reconcile.
    pub(super) fn apply(&mut self, event: LeaderEvent, cache: &mut Cache) -> BTreeSet<Arc<PoolId>> {
        match event {
            LeaderEvent::Polled(polled) => self.apply_readings(polled),
            LeaderEvent::JobEnded(pool_uid, result) => {
                self.apply_job_result(pool_uid.as_deref(), *result, cache)
            }
        }
    }

    /// Pools with a retry that is due.
    pub(super) fn due(&self) -> BTreeSet<Arc<PoolId>> {
        let now = self.clock.now();
        let due = self.pools.iter().filter(|(_, pool)| pool.is_due(now));
        due.map(|(id, _)| Arc::clone(id)).collect()
    }

    /// Reconciles these pools, and those whose group conflicts changed.
    pub(super) fn reconcile(&mut self, mut touched: BTreeSet<Arc<PoolId>>, cache: &Cache) {
        touched.extend(self.update_group_conflicts(&touched, cache));
        for id in touched {
            match cache.pool(&id) {
                Some(snapshot) => {
                    let (started, jobs_before) = (Instant::now(), self.jobs.started_for_pools());
                    self.reconcile_pool(&id, snapshot, cache);
                    if self.jobs.started_for_pools() == jobs_before {
                        self.metrics.reconciled(Outcome::Unchanged, started.elapsed());
                    }
                }
                None => self.forget(&id, cache),
            }
        }
        for name in self.clusters.secrets.due(self.clock.now()) {
            self.jobs.read_secret(name);
        }
    }

    fn reconcile_pool(&mut self, id: &Arc<PoolId>, snapshot: &PoolSnapshot, cache: &Cache) {
        let now = self.clock.now();
        if self.pools.get(id).is_some_and(|pool| pool.uid != snapshot.uid) {
            self.forget(id, cache);
        }
        // Taken out of the map, so that `self` can be borrowed meanwhile.
        let mut pool = self
            .pools
            .remove(id)
            .unwrap_or_else(|| PoolState::new(id, snapshot, now));
        pool.plan(snapshot, &self.workers);
        match (pool.plan.clone(), &pool.invalid_spec) {
            (Some(plan), None) => {
                self.open_cluster(&mut pool, &plan);
                for role in Role::ALL {
                    self.reconcile_role(&mut pool, &plan, role, snapshot, cache, now);
                }
            }
            (_, invalid_spec) => {
                stop_reading(&pool);
                if let Some(problems) = invalid_spec.clone() {
                    pool.record_event(PoolFact::InvalidSpec(&problems), &self.events, now);
                }
            }
        }
        if let Some(status) = pool.due_status(cache, snapshot, now, &wall_clock_time()) {
            pool.status.is_busy = true;
            self.jobs
                .update_status(Arc::clone(id), Arc::clone(&snapshot.uid), status);
        }
        self.pools.insert(Arc::clone(id), pool);
    }

    fn reconcile_role(
        &mut self,
        pool: &mut PoolState,
        plan: &Arc<PoolPlan>,
        role: Role,
        snapshot: &PoolSnapshot,
        cache: &Cache,
        now: Moment,
    ) {
        let key = pool.key(role);
        let role_plan = plan.role(role);
        let running = cache.deployment(&key);
        let workload = workload(running, cache.pods(&key).map(|(_, pod)| pod), Timestamp::now());
        // A disabled role is still read while its offsets must be kept.
        let is_read = role_plan.enabled || pool.role_ref(role).adoption().is_some();
        if let ClusterAccess::Open(open_cluster) = &pool.access {
            if is_read {
                let role_state = pool.role_ref(role);
                let query = role_state.role_query(role_plan, &workload, self.keep_offsets_after, now);
                open_cluster.poller.set_query(&key, query);
            } else {
                open_cluster.poller.remove(&key);
            }
        }
        let step = if role_plan.enabled {
            let ids = conflicts::WorkerIds::new(&key, &snapshot.uid);
            let group = pool.role_ref(role).members();
            let conflict = self
                .held
                .get(&key)
                .cloned()
                .or_else(|| conflicts::foreign_members(plan, role, group, &ids, &workload));
            let variant = self.variant(plan, role, running);
            let manifest_hash = pool.manifest_hash(plan, role, &self.workers, &variant);
            let inputs = RoleInputs {
                plan: role_plan,
                servers: &plan.kafka.bootstrap_servers,
                deployment: running,
                manifest_hash: &manifest_hash,
                pool_uid: &snapshot.uid,
                worker_ids: &ids,
                written_adoption: snapshot
                    .status
                    .as_deref()
                    .and_then(|status| role_status(status, role)?.adoption.as_ref()),
                recommit_after: self.keep_offsets_after,
            };
            let step = pool.role(role).next(inputs, workload, conflict, now);
            pool.update_metrics(role, &self.metrics, now);
            pool.record_role_events(role, cache, &self.events, now);
            step
        } else {
            let recommit_after = self.keep_offsets_after;
            pool.role(role).disable(role_plan, &workload, recommit_after, now)
        };
        if let Some(step) = step {
            self.start_job(pool, plan, key, step, cache);
        }
    }

    /// The parts of a role's Deployment that do not follow from its plan. While a Secret cannot be read, the current
    /// hash is kept.
    fn variant(&self, plan: &PoolPlan, role: Role, running: Option<&DeploymentSnapshot>) -> Variant {
        let read = self.clusters.secrets.hash(plan, role).map(Arc::from);
        Variant {
            rollout: rollout(running, plan.role(role)),
            secrets_hash: read.or_else(|| running?.secrets_hash.clone()),
        }
    }

    /// Starts a job for a step.
    fn start_job(
        &mut self,
        pool: &mut PoolState,
        plan: &Arc<PoolPlan>,
        key: RoleKey,
        step: Step,
        cache: &Cache,
    ) {
        let role = key.role;
        let uid = Arc::clone(&pool.uid);
        match (step, &pool.access) {
            (Step::Deploy { replicas }, _) => {
                let running = cache.deployment(&key);
                let manifest = pool.manifest(plan, role, &self.workers, self.variant(plan, role, running));
                log_deployment(&key, replicas, running.map(|running| running.replicas), pool);
                let known = running.map(|running| Arc::clone(&running.resource_version));
                self.jobs.deploy(key, uid, manifest, replicas, known);
            }
            (
                Step::Annotate {
                    pods,
                    cost_annotation,
                },
                _,
            ) => self.jobs.annotate(key, uid, pods, cost_annotation),
            (Step::Adopt(adopt), ClusterAccess::Open(open_cluster)) => {
                tracing::info!(pool = %key.pool, %role, topic_id = ?adopt.topic.topic_id, cluster_id = ?adopt.topic.cluster_id, commits = adopt.commits.len(), "Initializing offsets");
                self.jobs.adopt(
                    key,
                    uid,
                    Arc::clone(open_cluster),
                    plan.role(role),
                    adopt,
                    wall_clock_time(),
                );
            }
            (Step::Restore(commits), ClusterAccess::Open(open_cluster)) => {
                tracing::warn!(pool = %key.pool, %role, commits = commits.len(), "The brokers have lost the group's offsets: committing those in the pool's status");
                self.jobs
                    .restore(key, uid, Arc::clone(open_cluster), plan.role(role), commits);
            }
            (Step::Recommit(partitions), ClusterAccess::Open(open_cluster)) => {
                self.jobs
                    .recommit(key, uid, Arc::clone(open_cluster), plan.role(role), partitions);
            }
            // These steps need readings, which exist only while the cluster is open.
            (Step::Adopt(_) | Step::Restore(_) | Step::Recommit(_), _) => {
                pool.role(role).step_succeeded(self.clock.now());
            }
        }
    }

    /// Opens the pool's Kafka cluster, once its Secrets were read.
    fn open_cluster(&mut self, pool: &mut PoolState, plan: &PoolPlan) {
        let now = self.clock.now();
        self.clusters.secrets.register(plan);
        let open_cluster = match self.clusters.settings(&plan.kafka, &plan.id) {
            SettingsLookup::Pending => return,
            SettingsLookup::Missing(why) => Err(why),
            SettingsLookup::Ready(settings) => {
                let current = match &pool.access {
                    ClusterAccess::Open(open_cluster) => Some(open_cluster),
                    _ => None,
                };
                self.clusters
                    .open(settings, current, self.clock, &self.send_polled, &self.metrics)
            }
        };
        match open_cluster {
            Ok(open_cluster) => {
                if let ClusterAccess::Open(before) = &pool.access
                    && !Arc::ptr_eq(before, &open_cluster)
                {
                    stop_reading(pool);
                    if before.servers() != open_cluster.servers() {
                        // Readings of the former brokers do not apply to the new ones.
                        for role in Role::ALL {
                            pool.role(role).forget_reading();
                        }
                    }
                }
                pool.access = ClusterAccess::Open(open_cluster);
            }
            Err(why) => {
                stop_reading(pool);
                for role in Role::ALL {
                    pool.role(role).cannot_read(&why, now);
                }
                pool.record_event(PoolFact::SecretMissing { what: &why.0 }, &self.events, now);
                pool.access = ClusterAccess::Missing;
            }
        }
    }

    fn forget(&mut self, id: &Arc<PoolId>, cache: &Cache) {
        if let Some(pool) = self.pools.remove(id) {
            stop_reading(&pool);
        }
        let plans = cache.pools().filter_map(|(_, pool)| pool.plan.as_deref().ok());
        self.clusters.secrets.retain(plans);
    }

    /// Recomputes which roles share a group, if a spec changed or a pool's credentials were first accepted for its
    /// group. Returns the pools whose result changed.
    fn update_group_conflicts(
        &mut self,
        touched: &BTreeSet<Arc<PoolId>>,
        cache: &Cache,
    ) -> BTreeSet<Arc<PoolId>> {
        let mut is_unchanged = true;
        for id in touched {
            let now = cache.pool(id).map(|snapshot| {
                let uses = self.group_uses(id, snapshot);
                let clusters = uses.map(|group_use| group_use.map(|group_use| group_use.cluster_id));
                (Arc::clone(&snapshot.uid), snapshot.generation, clusters)
            });
            is_unchanged &= self.held_inputs.get(id) == now.as_ref();
            match now {
                Some(now) => self.held_inputs.insert(Arc::clone(id), now),
                None => self.held_inputs.remove(id),
            };
        }
        if is_unchanged {
            return BTreeSet::new();
        }
        let pools = cache
            .pools()
            .map(|(id, snapshot)| (id, snapshot, self.group_uses(id, snapshot)));
        let held = conflicts::shared_groups(pools);
        let differs = |key: &&RoleKey| held.get(*key) != self.held.get(*key);
        let changed = held.keys().chain(self.held.keys()).filter(differs);
        let changed = changed.map(|key| Arc::clone(&key.pool)).collect();
        self.held = held;
        changed
    }

    fn group_uses(&self, id: &Arc<PoolId>, snapshot: &PoolSnapshot) -> GroupUses {
        let Ok(plan) = &snapshot.plan else {
            return GroupUses::default();
        };
        match self.pools.get(id).filter(|pool| pool.uid == snapshot.uid) {
            Some(pool) => pool.group_uses(plan),
            None => PoolState::new(id, snapshot, Moment::default()).group_uses(plan),
        }
    }

    fn apply_readings(&mut self, polled: Vec<Polled<RoleKey>>) -> BTreeSet<Arc<PoolId>> {
        let time = wall_clock_time();
        let mut touched = BTreeSet::new();
        for polled in polled {
            let Some(pool) = self.pools.get_mut(&polled.key.pool) else {
                continue;
            };
            let Some(plan) = pool.plan.clone() else { continue };
            // A round of a cluster that the pool no longer uses may still have been in progress.
            if !matches!(&pool.access, ClusterAccess::Open(open_cluster) if Arc::ptr_eq(&open_cluster.cluster, &polled.cluster))
            {
                continue;
            }
            let key = polled.key.clone();
            pool.role(key.role).read(polled, plan.role(key.role), &time);
            touched.insert(key.pool);
        }
        touched
    }

    fn apply_job_result(
        &mut self,
        pool_uid: Option<&str>,
        result: JobResult,
        cache: &mut Cache,
    ) -> BTreeSet<Arc<PoolId>> {
        let now = self.clock.now();
        if let Some(id) = result.pool()
            && self.pools.get(id).map(|pool| &*pool.uid) != pool_uid
        {
            // The job was for a deleted pool; a recreated pool of the same name has its own jobs.
            return BTreeSet::from([Arc::clone(id)]);
        }
        match result {
            JobResult::Deployed(key, result) => {
                let mut touched = BTreeSet::from([Arc::clone(&key.pool)]);
                let Some(pool) = self.pools.get_mut(&key.pool) else {
                    return touched;
                };
                let role = pool.role(key.role);
                let change = match result {
                    Ok(DeployOutcome::Written(snapshot)) => {
                        role.deployed(&snapshot);
                        role.step_succeeded(now);
                        if let Some(before) = cache.deployment(&key) {
                            pool.wrote_replicas(key.role, before.replicas, snapshot.replicas);
                        }
                        Change::Applied(key.clone(), snapshot)
                    }
                    Ok(DeployOutcome::OtherVersion(snapshot)) => {
                        role.step_outdated(now);
                        Change::Applied(key.clone(), snapshot)
                    }
                    Ok(DeployOutcome::Deleted) => {
                        role.step_outdated(now);
                        Change::Missing(key.clone())
                    }
                    Err(failure) => {
                        role_failed(role, &key, failure, "Deployment could not be written", now);
                        return touched;
                    }
                };
                touched.extend(cache.apply_response(&key.pool, WatchEvent::Deployment(change)));
                touched
            }
            JobResult::Annotated(
                key,
                AnnotateOutcome {
                    pods,
                    deleted,
                    failure,
                },
            ) => {
                let mut touched = BTreeSet::from([Arc::clone(&key.pool)]);
                let Some(pool) = self.pools.get_mut(&key.pool) else {
                    return touched;
                };
                match failure {
                    None => pool.role(key.role).step_succeeded(now),
                    Some(failure) => role_failed(
                        pool.role(key.role),
                        &key,
                        failure,
                        "Pods could not be annotated",
                        now,
                    ),
                }
                let existing = pods
                    .into_iter()
                    .map(|(name, snapshot)| Change::Applied((key.clone(), name), snapshot));
                let deleted = deleted
                    .into_iter()
                    .map(|name| Change::Missing((key.clone(), name)));
                for change in existing.chain(deleted) {
                    touched.extend(cache.apply_response(&key.pool, WatchEvent::Pod(change)));
                }
                touched
            }
            JobResult::Adopted(key, result) => {
                let touched = BTreeSet::from([Arc::clone(&key.pool)]);
                let Some(pool) = self.pools.get_mut(&key.pool) else {
                    return touched;
                };
                let role = pool.role(key.role);
                match result {
                    Ok(adoption) => {
                        role.step_succeeded(now);
                        role.adopted(adoption, now);
                        pool.adopted(key.role);
                    }
                    Err(failure) => role_failed(role, &key, failure, "Offsets could not be initialized", now),
                }
                touched
            }
            JobResult::Recommitted(key, result) => self.with_role(&key, |role| match result {
                Ok(()) => {
                    role.step_succeeded(now);
                    role.recommitted(now);
                }
                Err(failure) => role_failed(role, &key, failure, "Offsets could not be committed again", now),
            }),
            JobResult::Restored(key, result) => self.with_role(&key, |role| match result {
                Ok(()) => {
                    role.step_succeeded(now);
                    role.restored(now);
                }
                Err(failure) => role_failed(role, &key, failure, "Offsets could not be restored", now),
            }),
            JobResult::StatusUpdated(id, result) => {
                let mut touched = BTreeSet::from([Arc::clone(&id)]);
                let Some(pool) = self.pools.get_mut(&id) else {
                    return touched;
                };
                let status = &mut pool.status;
                status.is_busy = false;
                match result {
                    Ok(snapshot) => {
                        status.retry.succeeded();
                        status.written_at = Some(now);
                        touched.extend(cache.apply_response(
                            &id,
                            WatchEvent::Pool(Change::Applied(Arc::clone(&id), *snapshot)),
                        ));
                    }
                    Err(failure) => {
                        tracing::warn!(pool = %id, error = failure.error, "Status could not be written");
                        status.retry.failed(failure.pause, now);
                    }
                }
                touched
            }
            JobResult::SecretRead(name, result) => self.secret_read(&name, result, cache),
        }
    }

    fn with_role(
        &mut self,
        key: &RoleKey,
        then: impl FnOnce(&mut super::role::RoleState),
    ) -> BTreeSet<Arc<PoolId>> {
        if let Some(pool) = self.pools.get_mut(&key.pool) {
            then(pool.role(key.role));
        }
        BTreeSet::from([Arc::clone(&key.pool)])
    }

    fn secret_read(
        &mut self,
        name: &SecretName,
        result: Result<Option<Box<k8s_openapi::api::core::v1::Secret>>, Failure>,
        cache: &Cache,
    ) -> BTreeSet<Arc<PoolId>> {
        let read = match result {
            Ok(secret) => Ok(secret.map(|secret| *secret)),
            Err(failure) => {
                tracing::warn!(
                    namespace = name.namespace,
                    secret = name.name,
                    error = failure.error,
                    "A Secret could not be read"
                );
                Err(failure.error)
            }
        };
        if !self.clusters.secrets.read(name, read, self.clock.now()) {
            return BTreeSet::new();
        }
        let uses = |plan: &PoolPlan| secrets_of(plan).contains(name);
        cache
            .pools()
            .filter(|(_, pool)| pool.plan.as_ref().is_ok_and(|plan| uses(plan)))
            .map(|(id, _)| Arc::clone(id))
            .collect()
    }
}

fn role_failed(
    role: &mut super::role::RoleState,
    key: &RoleKey,
    failure: Failure,
    message: &str,
    now: Moment,
) {
    tracing::warn!(pool = %key.pool, role = %key.role, error = failure.error, "{message}");
    role.step_failed(failure.problem, failure.pause, now);
}

/// Stops reading a pool's roles.
fn stop_reading(pool: &PoolState) {
    if let ClusterAccess::Open(open_cluster) = &pool.access {
        for role in Role::ALL {
            open_cluster.poller.remove(&pool.key(role));
        }
    }
}

fn log_deployment(key: &RoleKey, replicas: u32, before: Option<u32>, pool: &PoolState) {
    let explanation = pool.role_ref(key.role).explanation.as_ref();
    let reason = explanation.map(|explanation| explanation.reason.name());
    let why = explanation.map(ToString::to_string);
    tracing::info!(pool = %key.pool, role = %key.role, before, replicas, reason, why, "Writing Deployment");
}

/// The wall-clock time in whole seconds, the precision that the API server stores.
fn wall_clock_time() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
