//! The operator against a real Kubernetes API. All tests share one control plane; each has a namespace of its own.

mod conflicts;
mod crd;
mod edits;
mod leading;
mod lifecycle;
mod manifests;
mod rig;
mod scaling;
mod subject;
mod troubles;
