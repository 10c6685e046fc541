//! The operator against a real Kubernetes API. All tests share one control plane; each has a namespace of its own.
//!
//! They wait more than they work: with `-- --test-threads 8` two cores are done in a minute and a half.

mod adoption;
mod api_away;
mod by_hand;
mod chart;
mod check;
mod conflicts;
mod crd;
mod dependencies;
mod edits;
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
mod rig;
mod rights;
mod rollouts;
mod scale_in;
mod scaling;
mod secrets;
mod subject;
mod takeover;
mod terminating;
mod troubles;
