//! Worker settings that apply to every pool.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};

/// Worker options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct WorkerArguments {
    /// Worker image of pools without spec.image
    #[arg(long, env = "WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,
    /// Settings that podOverrides may contain although they are refused by default, comma separated
    #[arg(
        long,
        env = "ALLOW_IN_OVERRIDES",
        value_enum,
        value_delimiter = ',',
        value_name = "WHAT"
    )]
    pub allow_in_overrides: Vec<Allowance>,
}

/// A setting that `podOverrides` may contain although it is refused by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Allowance {
    /// Name a service account, and mount its token
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
    /// Worker image of pools without `spec.image`.
    pub image: String,
    /// Settings that `podOverrides` may contain.
    pub allowed: BTreeSet<Allowance>,
}

impl WorkerArguments {
    /// Converts the arguments.
    pub fn settings(&self) -> WorkerSettings {
        WorkerSettings {
            image: self.worker_image.clone(),
            allowed: self.allow_in_overrides.iter().copied().collect(),
        }
    }
}
