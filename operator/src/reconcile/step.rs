//! What is done for a role, one step at a time.

use super::group_offsets::Adopt;
use crate::apply::offsets::Commits;
use crate::decide::{Marked, PodName};

/// What is to be done for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write its Deployment, with so many replicas.
    Deploy {
        /// Replicas.
        replicas: u32,
    },
    /// Initialise its group's offsets, and remember that.
    Adopt(Adopt),
    /// Set the deletion-cost annotation on these pods, or remove it.
    Annotate {
        /// The pods.
        pods: Vec<PodName>,
        /// Whether they have it afterwards.
        marked: Marked,
    },
    /// Commit remembered offsets of a group that has lost all of its own.
    Restore(Commits),
    /// Commit again what is committed in these partitions, so that the broker does not forget it.
    Keep(Vec<i32>),
}
