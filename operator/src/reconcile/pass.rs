//! One pass over a pool: validate, observe, decide, apply, report. It sends no request: writes are started as jobs.

use std::sync::Arc;

use separation_kafka::ReadErrorKind;

use super::api_writer::NewTopic;
use super::clusters::SettingsLookup;
use super::conflicts;
use super::leader::Leader;
use super::pool::{ClusterAccess, PoolState, role_status, wall_clock_time};
use super::role::{RoleInputs, Step};
use crate::apply::{Manifest, rollout};
use crate::clock::WallClock;
use crate::decide::{CostAnnotation, Moment, Workload, Write};
use crate::events::PoolFact;
use crate::observe::workload::{DeploymentSnapshot, workload};
use crate::plan::{PoolId, PoolPlan, Role};
use crate::watch::cache::{Cache, PoolSnapshot, RoleKey};

/// A role's Deployment as it is now, and as planned.
struct Observed<'c> {
    key: RoleKey,
    deployment: Option<&'c DeploymentSnapshot>,
    manifest: Manifest,
}

impl Leader {
    /// Reconciles one pool.
    pub(super) fn reconcile_pool(&mut self, id: &Arc<PoolId>, snapshot: &PoolSnapshot, cache: &Cache) {
        let now = self.clock.now();
        if self.pools.get(id).is_some_and(|pool| pool.uid != snapshot.uid) {
            self.forget(id, cache);
        }
        // Taken out of the map, so that `self` can be borrowed meanwhile.
        let mut pool = self
            .pools
            .remove(id)
            .unwrap_or_else(|| PoolState::new(id, snapshot, now));
        if let Some(plan) = self.validate(&mut pool, snapshot, now) {
            let plan = pool.with_current_staging(plan, cache, now);
            self.open_cluster(&mut pool, &plan);
            for role in Role::ALL {
                let (observed, workload) = self.observe(&pool, &plan, role, cache, now);
                let step = self.decide(&mut pool, &plan, &observed, workload, snapshot, now);
                pool.update_metrics(role, &self.metrics, now);
                if plan.role(role).enabled {
                    pool.record_role_events(role, cache, &self.events, now);
                }
                if let Some(step) = step {
                    self.apply_step(&mut pool, &plan, observed, step);
                }
            }
            self.reconcile_api(&mut pool, &plan, cache, now);
        }
        self.report(&mut pool, snapshot, cache, now);
        self.pools.insert(Arc::clone(id), pool);
    }

    /// The plan of a valid spec. An invalid one leaves its workers as they are.
    fn validate(&self, pool: &mut PoolState, snapshot: &PoolSnapshot, now: Moment) -> Option<Arc<PoolPlan>> {
        pool.plan(snapshot, &self.workers);
        pool.record_warnings(&self.events);
        match (pool.plan.clone(), pool.invalid_spec.clone()) {
            (plan, None) => plan,
            (_, Some(problems)) => {
                pool.stop_reading();
                pool.record_event(PoolFact::InvalidSpec(&problems), &self.events, now);
                None
            }
        }
    }

    /// Joins what the cache has of a role with its plan, and sets what is to be read of Kafka.
    fn observe<'c>(
        &self,
        pool: &PoolState,
        plan: &Arc<PoolPlan>,
        role: Role,
        cache: &'c Cache,
        now: Moment,
    ) -> (Observed<'c>, Workload) {
        let key = pool.key(role);
        let role_plan = plan.role(role);
        let deployment = cache.deployment(&key);
        let pods = cache.pods(&key).map(|(_, pod)| pod);
        let workload = workload(deployment, pods, WallClock::read(now));
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
        // While a Secret cannot be read, the current hash is kept.
        let read = self.clusters.secrets.hash(plan, role).map(Arc::from);
        let manifest = Manifest {
            plan: Arc::clone(plan),
            role,
            owner: pool.owner.clone(),
            settings: Arc::clone(&self.workers),
            rollout: rollout(deployment, role_plan),
            secrets_hash: read.or_else(|| deployment?.secrets_hash.clone()),
        };
        let observed = Observed {
            key,
            deployment,
            manifest,
        };
        (observed, workload)
    }

    /// Decides on the replicas of a role, and returns the next step; none while a step runs or nothing is to be done.
    fn decide(
        &self,
        pool: &mut PoolState,
        plan: &Arc<PoolPlan>,
        observed: &Observed<'_>,
        workload: Workload,
        snapshot: &PoolSnapshot,
        now: Moment,
    ) -> Option<Step> {
        let key = &observed.key;
        let role = key.role;
        let role_plan = plan.role(role);
        let recommit_after = self.keep_offsets_after;
        if !role_plan.enabled {
            return pool.role(role).disable(role_plan, &workload, recommit_after, now);
        }
        let ids = conflicts::WorkerIds::new(key, &snapshot.uid);
        let group = pool.role_ref(role).members();
        let conflict =
            self.held.get(key).cloned().or_else(|| {
                conflicts::foreign_members(plan, role, group, &ids, &conflicts::names(&workload))
            });
        let manifest_hash = pool.manifest_hash(&observed.manifest);
        let status = snapshot.status.as_deref();
        let inputs = RoleInputs {
            plan: role_plan,
            servers: &plan.kafka.bootstrap_servers,
            deployment: observed.deployment,
            manifest_hash: &manifest_hash,
            pool_uid: &snapshot.uid,
            worker_ids: &ids,
            conflict: conflict.as_ref(),
            written_adoption: status.and_then(|status| role_status(status, role)?.offsets.as_ref()),
            recommit_after,
        };
        pool.role(role).next(inputs, workload, now)
    }

    /// Starts the job of a step.
    fn apply_step(&mut self, pool: &mut PoolState, plan: &Arc<PoolPlan>, observed: Observed<'_>, step: Step) {
        let Observed {
            key,
            deployment,
            manifest,
        } = observed;
        let role = key.role;
        let uid = Arc::clone(&pool.uid);
        match (step, &pool.access) {
            (Step::Write(Write::SetReplicas(replicas)), _) => {
                log_deployment(&key, replicas, deployment.map(|running| running.replicas), pool);
                self.jobs.deploy(key, uid, manifest, replicas, deployment);
            }
            (Step::Write(Write::Annotate(pods)), _) => {
                self.jobs.annotate(key, uid, pods, CostAnnotation::Present);
            }
            (Step::Write(Write::Unannotate(pods)), _) => {
                self.jobs.annotate(key, uid, pods, CostAnnotation::Absent);
            }
            (Step::CreateTopic(partitions), ClusterAccess::Open(open_cluster)) => {
                let role_plan = plan.role(role);
                tracing::info!(pool = %key.pool, %role, topic = role_plan.topic, partitions, "Creating the topic");
                let topic = NewTopic::new(&plan.kafka.bootstrap_servers, role_plan, partitions);
                self.jobs.create_topic(key, uid, Arc::clone(open_cluster), topic);
            }
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
            (Step::Replace(commits), ClusterAccess::Open(open_cluster)) => {
                tracing::warn!(pool = %key.pool, %role, commits = commits.len(), "Committed offsets are beyond the end of a topic without an id: committing its first offsets");
                self.jobs
                    .restore(key, uid, Arc::clone(open_cluster), plan.role(role), commits);
            }
            (Step::Recommit(partitions), ClusterAccess::Open(open_cluster)) => {
                self.jobs
                    .recommit(key, uid, Arc::clone(open_cluster), plan.role(role), partitions);
            }
            // These steps need readings, which exist only while the cluster is open.
            (
                Step::CreateTopic(_)
                | Step::Adopt(_)
                | Step::Restore(_)
                | Step::Replace(_)
                | Step::Recommit(_),
                _,
            ) => {
                pool.role(role).step_succeeded(self.clock.now());
            }
        }
    }

    /// Writes the status if it is due.
    fn report(&mut self, pool: &mut PoolState, snapshot: &PoolSnapshot, cache: &Cache, now: Moment) {
        if let Some(status) = pool.due_status(cache, snapshot, now, &wall_clock_time()) {
            pool.status.is_busy = true;
            self.jobs
                .update_status(Arc::clone(&pool.id), Arc::clone(&snapshot.uid), status);
        }
    }

    /// Opens the pool's Kafka cluster, once its Secrets were read, with an identity that the operator may use.
    fn open_cluster(&mut self, pool: &mut PoolState, plan: &PoolPlan) {
        let now = self.clock.now();
        self.clusters.secrets.register(plan);
        let lookup = self.clusters.settings(plan);
        let is_missing = matches!(lookup, SettingsLookup::Missing(_));
        let open_cluster = match lookup {
            SettingsLookup::Pending => return,
            SettingsLookup::Missing(why) => Err(why),
            SettingsLookup::Ready(connection) => {
                let current = match &pool.access {
                    ClusterAccess::Open(open_cluster) => Some(open_cluster),
                    _ => None,
                };
                self.clusters
                    .open(*connection, current, self.clock, &self.send_polled, &self.metrics)
            }
        };
        match open_cluster {
            Ok(open_cluster) => {
                if let ClusterAccess::Open(before) = &pool.access
                    && !Arc::ptr_eq(before, &open_cluster)
                {
                    pool.stop_reading();
                    if before.servers() != open_cluster.servers() {
                        // Readings of the former brokers do not apply to the new ones.
                        for role in Role::ALL {
                            pool.role(role).forget_reading();
                        }
                    }
                }
                pool.access = ClusterAccess::Open(open_cluster);
            }
            Err(error) => {
                pool.stop_reading();
                for role in Role::ALL {
                    pool.role(role).cannot_read(&error, now);
                }
                let fact = match error.kind {
                    ReadErrorKind::Unauthorized => PoolFact::IdentityRefused { why: &error.why },
                    _ if is_missing => PoolFact::SecretMissing { what: &error.why },
                    _ => PoolFact::InvalidConnection { why: &error.why },
                };
                pool.record_event(fact, &self.events, now);
                pool.access = ClusterAccess::Missing;
            }
        }
    }
}

fn log_deployment(key: &RoleKey, replicas: u32, before: Option<u32>, pool: &PoolState) {
    let explanation = pool.role_ref(key.role).explanation.as_ref();
    let reason = explanation.map(|explanation| explanation.reason.name());
    let why = explanation.map(ToString::to_string);
    tracing::info!(pool = %key.pool, role = %key.role, before, replicas, reason, why, "Writing Deployment");
}
