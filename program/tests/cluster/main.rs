//! The operator with a real Kubernetes API. All tests share one control plane; each has its own namespace.
//!
//! Tests mostly wait: with `-- --test-threads 8` they take a minute and a half on two cores.

mod adoption;
mod alerts;
mod api_unreachable;
mod chart;
mod check;
mod conflicts;
mod crd;
mod dependencies;
mod documented_install;
mod edits;
mod http_api;
mod identity;
mod killed;
mod leadership;
mod leading;
mod lifecycle;
mod manifests;
mod members;
mod metrics;
mod nesting;
mod offsets;
mod outages;
mod own_plane;
mod permissions;
mod pod_problems;
mod rig;
mod rollouts;
mod rotations;
mod scale_down;
mod scaling;
mod secrets;
mod staging;
mod subject;
mod takeover;
mod terminating;
mod topics;
