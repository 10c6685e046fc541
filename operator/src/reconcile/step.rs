//! What is done for a role, one step at a time.

use super::role::Adopt;
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
    /// Commit again what is committed, so that the broker does not forget it.
    Keep(Commits),
}
