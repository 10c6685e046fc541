//! The HTTP API of a pool: applied when its plan, its Secrets or its objects changed, deleted when the pool has none.

use std::sync::Arc;

use super::api_state::{ApiStep, PlannedApi, secret_problems};
use super::leader::Leader;
use super::pool::PoolState;
use super::retry::Pause;
use super::secrets::{SecretName, SecretState};
use crate::apply::{ApiObjects, api_objects, manifest_hash};
use crate::clock::WallClock;
use crate::decide::Moment;
use crate::observe::api::KnownApi;
use crate::observe::workload::workload;
use crate::plan::{PoolPlan, SecretKey};
use crate::watch::cache::Cache;

impl Leader {
    /// Starts the write that the pool's API needs, if any.
    pub(super) fn reconcile_api(
        &mut self,
        pool: &mut PoolState,
        plan: &Arc<PoolPlan>,
        cache: &Cache,
        now: Moment,
    ) {
        let known = cache.api_objects(&pool.id);
        let (id, uid) = (Arc::clone(&pool.id), Arc::clone(&pool.uid));
        let secrets = &self.clusters.secrets;
        pool.api.secret_problems = secret_problems(secrets, plan);
        let pods = workload(None, cache.api_pods(&id), WallClock::read(now));
        pool.api.record_pods(plan, known.deployment, &pods, now);
        self.plan_api(pool, plan, known);
        match pool.api.next(plan, known, &uid, now) {
            None => {}
            Some(ApiStep::Apply) => {
                let planned = pool.api.planned.as_ref();
                let secrets_hash = planned.and_then(|planned| planned.secrets_hash.as_deref());
                match self.objects(pool, plan, secrets_hash) {
                    Some(objects) => {
                        tracing::info!(pool = %id, "Applying the API");
                        self.jobs.apply_api(id, uid, Box::new(objects));
                    }
                    // The fields of the pods were validated with the spec.
                    None => pool.api.failed(None, Pause::Longest, now),
                }
            }
            Some(ApiStep::Delete) => {
                tracing::info!(pool = %id, "Deleting the API");
                self.jobs.delete_api(id, uid);
            }
        }
        pool.record_api_events(cache, &self.events, now);
    }

    /// Plans the API's objects, and again after their inputs changed; not before its Secrets were read, because its pods
    /// would be replaced afterwards.
    fn plan_api(&self, pool: &mut PoolState, plan: &PoolPlan, known: KnownApi<'_>) {
        let Some(api) = &plan.api else { return };
        let keys = plan.api_secret_keys();
        let is_unread = |key: &&SecretKey| {
            self.clusters.secrets.state(&SecretName::of(&plan.id, key)) == SecretState::NotYet
        };
        if known.deployment.is_none() && keys.iter().any(is_unread) {
            return;
        }
        let read = self.clusters.secrets.hash_of(&plan.id, &keys);
        // While a Secret cannot be read, the current hash is kept.
        let current = || {
            known
                .deployment?
                .deployment
                .secrets_hash
                .as_deref()
                .map(str::to_owned)
        };
        let secrets_hash = read.or_else(current);
        let staging = &plan.storage.staging;
        let is_planned = |planned: &PlannedApi| {
            (planned.replicas, &planned.staging, &planned.secrets_hash)
                == (api.replicas, staging, &secrets_hash)
        };
        if pool.api.planned.as_ref().is_some_and(is_planned) {
            return;
        }
        let objects = self.objects(pool, plan, secrets_hash.as_deref());
        pool.api.planned = objects.map(|objects| PlannedApi {
            replicas: api.replicas,
            staging: staging.clone(),
            manifest_hash: manifest_hash(&objects.deployment).unwrap_or_default().to_owned(),
            secrets_hash,
        });
    }

    fn objects(&self, pool: &PoolState, plan: &PoolPlan, secrets_hash: Option<&str>) -> Option<ApiObjects> {
        let api = plan.api.as_ref()?;
        api_objects(plan, api, pool.owner.as_deref(), &self.workers, secrets_hash).ok()
    }
}
