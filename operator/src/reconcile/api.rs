//! The HTTP API of a pool: applied when its plan, its Secrets or its objects changed, deleted when the pool has none.

use std::sync::Arc;

use super::api_state::{ApiState, PlannedApi};
use super::leader::Leader;
use super::pool::PoolState;
use super::secrets::{SecretName, SecretState};
use crate::apply::{ApiObjects, api_objects, manifest_hash};
use crate::decide::Moment;
use crate::observe::api::ApiSnapshot;
use crate::plan::{PoolPlan, SecretKey};
use crate::watch::cache::Cache;

/// What to do with the objects of a pool's API.
#[derive(Debug)]
enum Change {
    None,
    Apply(Box<ApiObjects>),
    Delete,
}

impl Leader {
    /// Starts the write that the pool's API needs, if any.
    pub(super) fn reconcile_api(
        &mut self,
        pool: &mut PoolState,
        plan: &Arc<PoolPlan>,
        cache: &Cache,
        now: Moment,
    ) {
        if pool.api.is_busy || !pool.api.retry.may_attempt(now) {
            return;
        }
        let known = cache.api(&pool.id);
        let (id, uid) = (Arc::clone(&pool.id), Arc::clone(&pool.uid));
        match self.api_change(pool, plan, known) {
            Change::None => return,
            Change::Apply(objects) => {
                tracing::info!(pool = %id, "Applying the API");
                self.jobs.apply_api(id, uid, objects);
            }
            Change::Delete => {
                tracing::info!(pool = %id, "Deleting the API");
                self.jobs.delete_api(id, uid);
            }
        }
        pool.api.is_busy = true;
    }

    fn api_change(&self, pool: &mut PoolState, plan: &PoolPlan, known: Option<&ApiSnapshot>) -> Change {
        let Some(api) = &plan.api else {
            let is_ours = known.is_some_and(|known| known.is_owned_by(&pool.uid));
            return if is_ours { Change::Delete } else { Change::None };
        };
        let keys = plan.api_secret_keys();
        let is_unread = |key: &&SecretKey| {
            self.clusters.secrets.state(&SecretName::of(&plan.id, key)) == SecretState::NotYet
        };
        if known.is_none() && keys.iter().any(is_unread) {
            // Otherwise its pods would be replaced as soon as the Secrets were read.
            return Change::None;
        }
        let read = self.clusters.secrets.hash_of(&plan.id, &keys);
        // While a Secret cannot be read, the current hash is kept.
        let current = || known?.deployment.secrets_hash.as_deref().map(str::to_owned);
        let secrets_hash = read.or_else(current);
        let is_planned = pool.api.planned.as_ref().is_some_and(|planned| {
            planned.staging == plan.storage.staging && planned.secrets_hash == secrets_hash
        });
        let is_applied = |api_state: &ApiState| {
            known
                .zip(api_state.planned.as_ref())
                .is_some_and(|(known, planned)| {
                    let deployment = &known.deployment;
                    deployment.manifest_hash.as_deref() == Some(&*planned.manifest_hash)
                        && deployment.replicas == api.replicas
                        && api_state.written.is_some()
                        && deployment.our_fields == api_state.written
                })
        };
        if is_planned && is_applied(&pool.api) {
            return Change::None;
        }
        // The fields of the pods were validated with the spec.
        let owner = pool.owner.as_deref();
        let Ok(objects) = api_objects(plan, api, owner, &self.workers, secrets_hash.as_deref()) else {
            return Change::None;
        };
        pool.api.planned = Some(PlannedApi {
            staging: plan.storage.staging.clone(),
            secrets_hash,
            manifest_hash: manifest_hash(&objects.deployment).unwrap_or_default().to_owned(),
        });
        if is_applied(&pool.api) {
            Change::None
        } else {
            Change::Apply(Box::new(objects))
        }
    }
}
