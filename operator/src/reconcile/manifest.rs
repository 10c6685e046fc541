//! The Deployment that a role should have. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::apply::{Rollout, deployment, manifest_hash, with_secrets_hash};
use crate::plan::{PoolPlan, Role};
use crate::settings::WorkerSettings;

/// The inputs of a Deployment, which are much smaller than the Deployment itself.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) plan: Arc<PoolPlan>,
    pub(super) role: Role,
    pub(super) owner: Option<OwnerReference>,
    pub(super) settings: Arc<WorkerSettings>,
    pub(super) variant: Variant,
}

/// The parts of a Deployment that do not follow from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) rollout: Rollout,
    /// Hash of the contents of its Secrets; `None` until they were read.
    pub(super) secrets_hash: Option<Arc<str>>,
}

impl Manifest {
    /// The Deployment with `replicas`; `None` if overrides are invalid, which validation has already reported.
    pub(super) fn with(&self, replicas: u32) -> Option<Deployment> {
        let deployment = deployment(
            &self.plan,
            self.role,
            self.owner.as_ref(),
            &self.settings,
            replicas,
            self.variant.rollout,
        )
        .ok()?;
        Some(match &self.variant.secrets_hash {
            Some(hash) => with_secrets_hash(deployment, hash),
            None => deployment,
        })
    }

    /// The hash that the Deployment is compared by.
    pub(super) fn hash(&self) -> Arc<str> {
        let built = self.with(0);
        built.as_ref().and_then(manifest_hash).unwrap_or_default().into()
    }
}
