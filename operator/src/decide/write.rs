//! Writes of a plan.

use super::observation::PodName;

/// One write of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Remove our deletion-cost annotation from these pods.
    Unannotate(Vec<PodName>),
    /// Set our deletion-cost annotation on these pods, so that they are deleted first.
    Annotate(Vec<PodName>),
    /// Set the number of replicas.
    SetReplicas(u32),
}
