//! The Deployment of a pool's HTTP API, as far as it is used.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;

use super::workload::DeploymentSnapshot;

/// The Deployment of a pool's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSnapshot {
    /// What a role's Deployment has too.
    pub deployment: DeploymentSnapshot,
    /// Pods that are ready for requests.
    pub ready: u32,
}

impl ApiSnapshot {
    /// Extracts the parts that are used from a Deployment.
    pub fn from_deployment(deployment: &Deployment) -> Self {
        let ready = deployment
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas);
        Self {
            deployment: DeploymentSnapshot::from_deployment(deployment),
            ready: ready.and_then(|ready| u32::try_from(ready).ok()).unwrap_or(0),
        }
    }

    /// Whether the pool with this uid owns it.
    pub fn is_owned_by(&self, pool_uid: &str) -> bool {
        let owner: Option<&Arc<str>> = self.deployment.owner.as_ref();
        owner.is_some_and(|owner| **owner == *pool_uid)
    }
}
