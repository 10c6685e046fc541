//! Worker settings that apply to every pool.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use separation_contract::names;

use super::identity::named;
use crate::plan::Model;

/// Worker options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct WorkerArguments {
    /// Worker image of pools that name none
    #[arg(long, env = "WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,
    /// Secrets for pulling images, which must exist in the namespace of each pool, comma separated; added to those of
    /// pools [default: none]
    #[arg(
        long,
        env = "WORKER_IMAGE_PULL_SECRETS",
        value_delimiter = ',',
        value_name = "SECRET"
    )]
    pub worker_image_pull_secrets: Vec<String>,
    /// Separation model of pools that name none: the name of a model in the image, such as spleeter or builtin
    #[arg(long, env = "WORKER_MODEL", default_value = names::DEFAULT_MODEL, value_name = "MODEL")]
    pub worker_model: String,
    /// Settings of pods that pools may use although they are refused by default, comma separated
    #[arg(
        long,
        env = "ALLOW_IN_POD_TEMPLATE",
        value_enum,
        value_delimiter = ',',
        value_name = "WHAT"
    )]
    pub allow_in_pod_template: Vec<Allowance>,
}

/// A setting of pods that is refused by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Allowance {
    /// Name a service account, and mount its token, for any audience
    ServiceAccount,
    /// Share the node's network, processes or IPC, and its ports
    HostNamespaces,
    /// Mount files of the node (hostPath)
    HostPath,
    /// Privileged containers, added capabilities, no seccomp
    Privileged,
    /// Run as user 0
    Root,
}

/// Worker settings that apply to every pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Worker image of pools that name none.
    pub image: String,
    /// Names of Secrets, in the namespace of each pool, for pulling images; each once.
    pub image_pull_secrets: Vec<String>,
    /// Separation model of pools that name none.
    pub model: Model,
    /// Settings of pods that pools may use.
    pub allowed: BTreeSet<Allowance>,
    /// Audiences of the service account tokens for Kafka that pods may have.
    pub audiences: BTreeSet<String>,
}

impl WorkerArguments {
    /// Converts the arguments. `audiences` are those of the settings of the operator's identity.
    pub fn settings(&self, audiences: &BTreeSet<String>) -> WorkerSettings {
        let mut secrets = Vec::new();
        for name in named(&self.worker_image_pull_secrets).map(str::to_owned) {
            // The API server refuses to apply a pod that names one twice.
            if !secrets.contains(&name) {
                secrets.push(name);
            }
        }
        WorkerSettings {
            image: self.worker_image.clone(),
            image_pull_secrets: secrets,
            model: Model::named(&self.worker_model),
            allowed: self.allow_in_pod_template.iter().copied().collect(),
            audiences: audiences.clone(),
        }
    }
}
