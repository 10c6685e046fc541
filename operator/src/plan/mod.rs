//! A validated pool: later code does not check it again.
//!
//! Every rule of the CRD is checked here again: the CRD in a cluster may be older than this program, and a pool of
//! `separation-operator local` never passes an API server. All problems are reported together, each with its field and
//! its fix.

mod checks;
mod kafka;
mod overrides;
mod role;
mod storage;

#[cfg(test)]
mod tests;

use std::fmt;

use kube::ResourceExt as _;

use crate::crd::SeparationPool;
use checks::Checks;
use overrides::check_overrides;

pub use checks::{Problem, Problems};
pub use kafka::{CaSecret, ClientCertificateSecret, KafkaPlan, SaslPlan, TlsPlan};
pub use role::{Role, RolePlan};
pub use storage::{
    DeleteInput, Model, Outbound, Provider, S3Plan, S3Secret, SecretKey, SharedVolume, Staging, StoragePlan,
};

/// A validated pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPlan {
    /// Namespace and name.
    pub id: PoolId,
    /// The worker's image; none means the operator's default.
    pub image: Option<String>,
    /// Connection to Kafka.
    pub kafka: KafkaPlan,
    /// Storage of songs and stems.
    pub storage: StoragePlan,
    /// Separation model.
    pub model: Model,
    /// Execution provider of the model.
    pub provider: Provider,
    /// Addresses that webhooks may be sent to, and their signing secret.
    pub outbound: Outbound,
    /// Workers that consume tasks.
    pub processor: RolePlan,
    /// Workers that consume results.
    pub uploader: RolePlan,
}

/// Identifies a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl PoolPlan {
    /// Validates a pool.
    ///
    /// # Errors
    /// All invalid fields.
    pub fn from_pool(pool: &SeparationPool) -> Result<Self, Problems> {
        let spec = &pool.spec;
        let mut checks = Checks::default();
        let kafka = KafkaPlan::from_spec(&spec.kafka, &mut checks);
        let storage = StoragePlan::from_spec(&spec.storage, &mut checks);
        let model = Model::from_spec(&spec.model, &mut checks);
        check_overrides(Role::Processor, &spec.processor.pod_overrides, &mut checks);
        check_overrides(Role::Uploader, &spec.uploader.pod_overrides, &mut checks);
        let processor = RolePlan::from_spec(Role::Processor, &spec.processor, &mut checks);
        let uploader = RolePlan::from_spec(Role::Uploader, &spec.uploader, &mut checks);
        if let (Some(processor), Some(uploader)) = (&processor, &uploader) {
            for (is_shared, field, consequence) in [
                (
                    processor.group == uploader.group,
                    "group",
                    "one group would consume two topics",
                ),
                (
                    processor.topic == uploader.topic,
                    "topic",
                    "results would be consumed as tasks",
                ),
            ] {
                if is_shared {
                    let problem = format!("is also the processor's {field}, so {consequence}");
                    let fix = format!("give the uploader a {field} of its own");
                    let _: Option<()> = checks.refuse(&format!("uploader.{field}"), problem, fix);
                }
            }
        }
        match (kafka, storage, model, processor, uploader) {
            (Some(kafka), Some(storage), Some(model), Some(processor), Some(uploader))
                if checks.problems.is_empty() =>
            {
                Ok(Self {
                    id: PoolId {
                        namespace: pool.namespace().unwrap_or_default(),
                        name: pool.name_any(),
                    },
                    image: spec.image.clone(),
                    kafka,
                    storage,
                    model,
                    provider: Provider::from_spec(spec.provider),
                    outbound: Outbound::from_spec(&spec.outbound),
                    processor,
                    uploader,
                })
            }
            _ => Err(Problems(checks.problems)),
        }
    }

    /// The Secret keys that a role's workers read when they start.
    pub fn secret_keys(&self, role: Role) -> Vec<&SecretKey> {
        let mut keys = self.kafka.secret_keys();
        if let Some(s3) = &self.storage.s3.secret {
            keys.extend([&s3.access_key_id, &s3.secret_access_key]);
        }
        if role == Role::Uploader {
            keys.extend(&self.outbound.webhook_secret);
        }
        keys
    }

    /// The validated role.
    pub fn role(&self, role: Role) -> &RolePlan {
        match role {
            Role::Processor => &self.processor,
            Role::Uploader => &self.uploader,
        }
    }
}
