//! The operator against a real Kubernetes API. All tests share one control plane; each has a namespace of its own.

mod crd;
mod leading;
mod rig;
mod scaling;
mod subject;
