//! The objects of a pool's HTTP API, as far as they are used. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;

use super::workload::{DeploymentSnapshot, controller, our_fields, owns_spec_fields, resource_version};
use crate::crd::SeparationPool;

/// What an object of an API is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiObject {
    /// Its resourceVersion.
    pub resource_version: Arc<str>,
    /// Uid of its controller owner.
    pub owner: Option<Arc<str>>,
    /// Whether its controller is another kind of object than a pool.
    pub is_foreign: bool,
    /// A hash of the set of fields that the operator owns; `None` if the operator did not write it.
    pub our_fields: Option<u64>,
    /// Whether another field manager owns parts of its spec.
    pub is_edited: bool,
}

/// The Deployment of a pool's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSnapshot {
    /// What it is compared by, as the other objects are.
    pub object: ApiObject,
    /// What a role's Deployment has too. Its manifest hash is that of all objects of the API.
    pub deployment: DeploymentSnapshot,
    /// Pods that are ready for requests.
    pub ready: u32,
    /// Whether all pods have the current template and were available together since it changed; always for a template
    /// that was written with 0 replicas. A restart of a pod changes nothing here.
    pub is_rolled_out: bool,
}

/// The known objects of a pool's API.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownApi<'a> {
    /// The Deployment.
    pub deployment: Option<&'a ApiSnapshot>,
    /// The Service.
    pub service: Option<&'a ApiObject>,
    /// The service account.
    pub account: Option<&'a ApiObject>,
}

impl ApiObject {
    /// Extracts the parts that are used from an object.
    pub fn from_metadata(metadata: &ObjectMeta) -> Self {
        let owner = controller(metadata);
        Self {
            resource_version: resource_version(metadata),
            owner: owner.map(|owner| owner.uid.as_str().into()),
            is_foreign: owner.is_some_and(|owner| owner.kind != SeparationPool::kind(&())),
            our_fields: our_fields(metadata),
            is_edited: metadata.managed_fields.iter().flatten().any(owns_spec_fields),
        }
    }

    /// Whether an object with the name and the labels of a pool's API belongs to the pool: the pool with this uid owns
    /// it, or the operator wrote it for a former pool of the same name and no other controller has it.
    pub fn belongs_to(&self, pool_uid: &str) -> bool {
        self.owner.as_deref() == Some(pool_uid) || self.our_fields.is_some() && !self.is_foreign
    }
}

impl ApiSnapshot {
    /// Extracts the parts that are used from a Deployment.
    pub fn from_deployment(deployment: &Deployment) -> Self {
        let snapshot = DeploymentSnapshot::from_deployment(deployment);
        let status = deployment.status.as_ref();
        let ready = status.and_then(|status| status.ready_replicas);
        let has_one_template = snapshot
            .status
            .is_some_and(|counts| counts.observed && counts.updated == counts.replicas);
        Self {
            object: ApiObject::from_metadata(&deployment.metadata),
            deployment: snapshot,
            ready: ready.and_then(|ready| u32::try_from(ready).ok()).unwrap_or(0),
            is_rolled_out: has_one_template && status.is_some_and(is_complete),
        }
    }
}

/// Whether the Deployment controller has completed the last rollout.
fn is_complete(status: &DeploymentStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    let progressing = conditions.find(|condition| condition.type_.as_deref() == Some("Progressing"));
    progressing.is_some_and(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"))
}

impl<'a> KnownApi<'a> {
    /// The objects, always in this order: Deployment, Service, service account.
    pub fn objects(&self) -> [Option<&'a ApiObject>; 3] {
        let deployment = self.deployment.map(|deployment| &deployment.object);
        [deployment, self.service, self.account]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_rolled_out(generation: i64, updated: i32, progressing: &Value) -> bool {
        let deployment = json!({
            "metadata": {"generation": generation},
            "spec": {"selector": {}, "template": {}},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": updated, "readyReplicas": 1,
                       "conditions": [progressing]},
        });
        ApiSnapshot::from_deployment(&serde_json::from_value(deployment).expect("a Deployment")).is_rolled_out
    }

    #[test]
    fn a_rollout_ends_when_its_pods_were_available_and_a_restart_of_a_pod_begins_none() {
        let complete = json!({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"});
        let started = json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"});
        let stuck = json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
        // One of its two pods is not ready.
        assert!(is_rolled_out(2, 2, &complete));
        assert!(!is_rolled_out(2, 2, &started));
        assert!(!is_rolled_out(2, 2, &stuck));
        assert!(!is_rolled_out(2, 1, &complete));
        assert!(
            !is_rolled_out(3, 2, &complete),
            "the controller has not seen the spec"
        );
    }
}
