//! What the operator adds to every pool, and what pools may override.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};

/// Options about the workers that the operator starts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct WorkerArguments {
    /// Image of workers whose pool names none
    #[arg(long, env = "WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,
    /// What podOverrides may do although it is refused by default, comma separated
    #[arg(
        long,
        env = "ALLOW_IN_OVERRIDES",
        value_enum,
        value_delimiter = ',',
        value_name = "WHAT"
    )]
    pub allow_in_overrides: Vec<Allowance>,
}

/// What `podOverrides` may do although it is refused by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Allowance {
    /// Name a service account, and mount its token
    ServiceAccount,
    /// Share the node's network, processes or IPC, and its ports
    HostNamespaces,
    /// Mount the node's files
    HostPath,
    /// Privileged containers, added capabilities, no seccomp
    Privileged,
    /// Run as user 0
    Root,
}

/// What the operator adds to every pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Image of workers whose pool names none.
    pub image: String,
    /// What `podOverrides` may do.
    pub allowed: BTreeSet<Allowance>,
}

impl WorkerArguments {
    /// The settings.
    pub fn settings(&self) -> WorkerSettings {
        WorkerSettings {
            image: self.worker_image.clone(),
            allowed: self.allow_in_overrides.iter().copied().collect(),
        }
    }
}
