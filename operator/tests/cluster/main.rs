//! The operator against a real Kubernetes API. All tests share one control plane; each has a namespace of its own.

mod adoption;
mod conflicts;
mod crd;
mod edits;
mod leading;
mod lifecycle;
mod manifests;
mod members;
mod offsets;
mod outages;
mod rig;
mod scale_in;
mod scaling;
mod secrets;
mod subject;
mod troubles;
