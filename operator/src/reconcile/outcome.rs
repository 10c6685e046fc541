//! Applies the result of a job to the leader's state and to the cache.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use super::api_objects::WrittenApi;
use super::api_writer::{AnnotateOutcome, DeployOutcome, Failure};
use super::jobs::{JobResult, StepResult};
use super::leader::Leader;
use super::pool::PoolState;
use super::secrets::{SecretName, secrets_of};
use crate::decide::{Moment, PodName};
use crate::observe::workload::PodSnapshot;
use crate::plan::{PoolId, PoolPlan};
use crate::watch::cache::{Cache, PoolSnapshot, RoleKey, WatchEvent};
use crate::watch::mirror::Change;

impl Leader {
    /// Applies the result of a job that was started for the pool with this uid, and returns the pools to reconcile.
    pub(super) fn apply_job_result(
        &mut self,
        pool_uid: Option<&str>,
        result: JobResult,
        cache: &mut Cache,
    ) -> BTreeSet<Arc<PoolId>> {
        match result {
            JobResult::SecretRead(name, result) => self.secret_read(&name, result, cache),
            JobResult::Role(key, result) => {
                let id = Arc::clone(&key.pool);
                self.apply_to_pool(&id, pool_uid, cache, |pool, now| {
                    apply_step_result(pool, &key, result, now)
                })
            }
            JobResult::Api(id, result) => self.apply_to_pool(&id, pool_uid, cache, |pool, now| {
                apply_api_result(pool, result, now)
            }),
            JobResult::Status(id, result) => self.apply_to_pool(&id, pool_uid, cache, |pool, now| {
                apply_status_result(pool, result, now)
            }),
        }
    }

    /// Applies a result to the pool with this uid, then the changes that `apply` returns to the cache.
    fn apply_to_pool(
        &mut self,
        id: &Arc<PoolId>,
        uid: Option<&str>,
        cache: &mut Cache,
        apply: impl FnOnce(&mut PoolState, Moment) -> Vec<WatchEvent>,
    ) -> BTreeSet<Arc<PoolId>> {
        let mut touched = BTreeSet::from([Arc::clone(id)]);
        // A recreated pool of the same name has its own jobs.
        let pool = self.pools.get_mut(id).filter(|pool| Some(&*pool.uid) == uid);
        let changes = pool.map_or_else(Vec::new, |pool| apply(pool, self.clock.now()));
        for change in changes {
            touched.extend(cache.apply_response(id, change));
        }
        touched
    }

    fn secret_read(
        &mut self,
        name: &SecretName,
        result: Result<Option<Box<Secret>>, Failure>,
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

/// Applies the result of a role's step, and returns the changes of objects that the API server reported with it.
fn apply_step_result(
    pool: &mut PoolState,
    key: &RoleKey,
    result: StepResult,
    now: Moment,
) -> Vec<WatchEvent> {
    let failed = result.failure_message();
    let role = pool.role(key.role);
    let mut changes = Vec::new();
    let failure = match result {
        StepResult::Deployed(from, Ok(DeployOutcome::Written(snapshot))) => {
            role.deployed(&snapshot);
            // Not from the cache: the watch may have reported our write already.
            if let Some(from) = from {
                pool.wrote_replicas(key.role, from, snapshot.replicas);
            }
            changes.push(WatchEvent::Deployment(Change::Applied(key.clone(), snapshot)));
            None
        }
        StepResult::Deployed(_, Ok(DeployOutcome::OtherVersion(snapshot))) => {
            role.step_outdated(now);
            return vec![WatchEvent::Deployment(Change::Applied(key.clone(), snapshot))];
        }
        StepResult::Deployed(_, Ok(DeployOutcome::Deleted)) => {
            role.step_outdated(now);
            return vec![WatchEvent::Deployment(Change::Missing(key.clone()))];
        }
        StepResult::Annotated(AnnotateOutcome {
            pods,
            deleted,
            failure,
        }) => {
            changes.extend(pod_changes(key, pods, deleted));
            failure
        }
        StepResult::Adopted(Ok(adoption)) => {
            role.adopted(adoption, now);
            pool.adopted(key.role);
            None
        }
        StepResult::TopicCreated(Ok(())) => {
            role.topic_created();
            None
        }
        StepResult::Recommitted(Ok(())) => {
            role.offsets.recommitted(now);
            None
        }
        StepResult::Restored(Ok(())) => {
            role.restored(now);
            None
        }
        StepResult::Deployed(_, Err(failure))
        | StepResult::TopicCreated(Err(failure))
        | StepResult::Adopted(Err(failure))
        | StepResult::Recommitted(Err(failure))
        | StepResult::Restored(Err(failure)) => Some(failure),
    };
    let role = pool.role(key.role);
    match failure {
        None => role.step_succeeded(now),
        Some(failure) => {
            tracing::warn!(pool = %key.pool, role = %key.role, error = failure.error, "{failed}");
            role.step_failed(failure.problem, failure.pause, now);
        }
    }
    changes
}

/// The changes of pods that were annotated, or found to be deleted.
fn pod_changes(
    key: &RoleKey,
    pods: Vec<(PodName, PodSnapshot)>,
    deleted: Vec<PodName>,
) -> impl Iterator<Item = WatchEvent> {
    let of_pod = |name| (key.clone(), name);
    let existing = pods.into_iter();
    let existing = existing.map(move |(name, snapshot)| Change::Applied(of_pod(name), snapshot));
    let deleted = deleted.into_iter().map(move |name| Change::Missing(of_pod(name)));
    existing.chain(deleted).map(WatchEvent::Pod)
}

fn apply_api_result(
    pool: &mut PoolState,
    result: Result<Option<Box<WrittenApi>>, Failure>,
    now: Moment,
) -> Vec<WatchEvent> {
    let id = Arc::clone(&pool.id);
    match result {
        Ok(written) => {
            pool.api.succeeded(written.as_deref().map(WrittenApi::as_known));
            written.map_or_else(|| deleted_api(&id), |written| written_api(&id, *written))
        }
        Err(failure) => {
            tracing::warn!(pool = %id, error = failure.error, "The API could not be written");
            pool.api.failed(failure.problem, failure.pause, now);
            Vec::new()
        }
    }
}

fn written_api(id: &Arc<PoolId>, written: WrittenApi) -> Vec<WatchEvent> {
    let account = written
        .account
        .map(|account| Change::Applied(Arc::clone(id), account));
    let mut changes = vec![
        WatchEvent::ApiService(Change::Applied(Arc::clone(id), written.service)),
        WatchEvent::Api(Change::Applied(Arc::clone(id), written.deployment)),
    ];
    changes.extend(account.map(WatchEvent::ApiAccount));
    changes
}

fn deleted_api(id: &Arc<PoolId>) -> Vec<WatchEvent> {
    vec![
        WatchEvent::Api(Change::Missing(Arc::clone(id))),
        WatchEvent::ApiService(Change::Missing(Arc::clone(id))),
        WatchEvent::ApiAccount(Change::Missing(Arc::clone(id))),
    ]
}

fn apply_status_result(
    pool: &mut PoolState,
    result: Result<Box<PoolSnapshot>, Failure>,
    now: Moment,
) -> Vec<WatchEvent> {
    let status = &mut pool.status;
    status.is_busy = false;
    match result {
        Ok(snapshot) => {
            status.retry.succeeded();
            status.written_at = Some(now);
            vec![WatchEvent::Pool(Change::Applied(Arc::clone(&pool.id), *snapshot))]
        }
        Err(failure) => {
            tracing::warn!(pool = %pool.id, error = failure.error, "Status could not be written");
            status.retry.failed(failure.pause, now);
            Vec::new()
        }
    }
}
