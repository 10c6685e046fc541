//! A pool that was checked: what no later code doubts.
//!
//! Every rule of the definition is checked here again, for the definition in a cluster may be older than this program,
//! and a pool on one machine never meets an API server. All problems are found at once, each with its field and its fix.

mod kafka;
mod overrides;
mod role;
mod storage;

#[cfg(test)]
mod tests;

use std::fmt;

use kube::ResourceExt as _;

use crate::crd::{RoleDefaults, SeparationPool};
use overrides::check_overrides;

pub use kafka::{CaSecret, ClientCertificateSecret, KafkaPlan, SaslPlan, TlsPlan};
pub use role::{FailurePolicy, Role, RolePlan};
pub use storage::{
    Claim, DeleteInput, Model, Outbound, Provider, S3Plan, S3Secret, SecretKey, StoragePlan, Work,
};

/// A pool that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPlan {
    /// Which one.
    pub id: PoolId,
    /// The worker's image; none means the operator's own choice.
    pub image: Option<String>,
    /// How Kafka is reached.
    pub kafka: KafkaPlan,
    /// Where songs and stems are.
    pub storage: StoragePlan,
    /// What separates.
    pub model: Model,
    /// What the model runs on.
    pub provider: Provider,
    /// What workers may call.
    pub outbound: Outbound,
    /// Workers that take tasks.
    pub processor: RolePlan,
    /// Workers that take results.
    pub uploader: RolePlan,
}

/// Which pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Something in a pool that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{field}: {problem}; fix: {fix}")]
pub struct Problem {
    /// The field, as `spec.kafka.sasl`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What would make it right.
    pub fix: String,
}

/// All that cannot be done in a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl PoolPlan {
    /// Checks a pool.
    ///
    /// # Errors
    /// Everything in it that cannot be done.
    pub fn of(pool: &SeparationPool) -> Result<Self, Problems> {
        let spec = &pool.spec;
        let mut checks = Checks::default();
        let kafka = KafkaPlan::of(&spec.kafka, &mut checks);
        let storage = StoragePlan::of(&spec.storage, &mut checks);
        let model = Model::of(&spec.model, &mut checks);
        check_overrides(Role::Processor, &spec.processor.pod_overrides, &mut checks);
        check_overrides(Role::Uploader, &spec.uploader.pod_overrides, &mut checks);
        let processor = RolePlan::of(
            Role::Processor,
            &spec.processor,
            &RoleDefaults::PROCESSOR,
            &mut checks,
        );
        let uploader = RolePlan::of(
            Role::Uploader,
            &spec.uploader,
            &RoleDefaults::UPLOADER,
            &mut checks,
        );
        if let (Some(processor), Some(uploader)) = (&processor, &uploader) {
            let shared = |same: bool, what: &str, so: &str| {
                same.then(|| Problem {
                    field: format!("spec.uploader.{what}"),
                    problem: format!("is the processor's {what} too, so {so}"),
                    fix: format!("give the uploader a {what} of its own"),
                })
            };
            checks.problems.extend(shared(
                processor.group == uploader.group,
                "group",
                "members of one group would read two topics",
            ));
            checks.problems.extend(shared(
                processor.topic == uploader.topic,
                "topic",
                "results would be read as tasks",
            ));
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
                    provider: Provider::of(spec.provider),
                    outbound: Outbound::of(&spec.outbound),
                    processor,
                    uploader,
                })
            }
            _ => Err(Problems(checks.problems)),
        }
    }

    /// The keys of Secrets that a role's workers read when they start.
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

    /// The plan of one role.
    pub fn role(&self, role: Role) -> &RolePlan {
        match role {
            Role::Processor => &self.processor,
            Role::Uploader => &self.uploader,
        }
    }
}

/// Problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    problems: Vec<Problem>,
}

impl Checks {
    /// Notes a problem, and gives nothing.
    pub(crate) fn refuse<T>(
        &mut self,
        field: &str,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Option<T> {
        self.problems.push(Problem {
            field: format!("spec.{field}"),
            problem: problem.into(),
            fix: fix.into(),
        });
        None
    }

    /// A number that must lie in a range.
    pub(crate) fn whole<T: TryFrom<i64>>(
        &mut self,
        field: &str,
        value: i64,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<T> {
        let fits = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
        fits.or_else(|| {
            let (least, most) = range.into_inner();
            self.refuse(
                field,
                format!("{value} is out of range"),
                format!("choose {least} to {most}"),
            )
        })
    }
}
