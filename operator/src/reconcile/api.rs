//! The HTTP API of a pool: applied when its plan, its Secrets or its objects changed, deleted when the pool has none.

use std::sync::Arc;

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

    fn api_change(&self, pool: &PoolState, plan: &PoolPlan, known: Option<&ApiSnapshot>) -> Change {
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
        let current = known.and_then(|known| known.deployment.secrets_hash.as_deref());
        let secrets_hash = read.as_deref().or(current);
        // The fields of the pods were validated with the spec.
        let Ok(objects) = api_objects(plan, api, pool.owner.as_deref(), &self.workers, secrets_hash) else {
            return Change::None;
        };
        let is_applied = known.is_some_and(|known| {
            let deployment = &known.deployment;
            deployment.manifest_hash.as_deref() == manifest_hash(&objects.deployment)
                && deployment.replicas == api.replicas
                && pool.api.written.is_some()
                && deployment.our_fields == pool.api.written
        });
        if is_applied {
            Change::None
        } else {
            Change::Apply(Box::new(objects))
        }
    }
}
