//! The writes for a role, one step at a time.

use super::group_offsets::Adopt;
use crate::apply::offsets::Commits;
use crate::decide::{CostAnnotation, PodName};

/// A write for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write its Deployment.
    Deploy {
        /// `spec.replicas`.
        replicas: u32,
    },
    /// Initialize its group's offsets, and record that in the status.
    Adopt(Adopt),
    /// Set the deletion-cost annotation on these pods, or remove it.
    Annotate {
        /// The pods.
        pods: Vec<PodName>,
        /// Whether to set or remove it.
        cost_annotation: CostAnnotation,
    },
    /// Commit the offsets recorded in the status, for a group that has lost all of its offsets.
    Restore(Commits),
    /// Commit the current offsets of these partitions again, so that they do not expire.
    Recommit(Vec<i32>),
}
