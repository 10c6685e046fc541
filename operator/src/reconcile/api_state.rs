//! State of a pool's HTTP API, and its part of the status. Pure.

use super::retry::Retry;
use crate::apply::api_name;
use crate::crd::ApiStatus;
use crate::observe::api::ApiSnapshot;
use crate::observe::workload::WorkloadProblem;
use crate::plan::{PoolPlan, Staging};

/// State of a pool's API.
#[derive(Debug, Default)]
pub(super) struct ApiState {
    pub(super) is_busy: bool,
    pub(super) retry: Retry,
    /// Why the last write failed, if a user must fix it.
    pub(super) problem: Option<WorkloadProblem>,
    /// What the planned objects were last built from, and the hash of their Deployment.
    pub(super) planned: Option<PlannedApi>,
    /// The fields of the Deployment that the operator owned after its last write.
    pub(super) written: Option<u64>,
}

/// The inputs of the planned objects that change within one spec, and the hash of the Deployment.
#[derive(Debug)]
pub(super) struct PlannedApi {
    pub(super) staging: Staging,
    pub(super) secrets_hash: Option<String>,
    pub(super) manifest_hash: String,
}

impl ApiState {
    /// The API's part of the status; none without one.
    pub(super) fn status(&self, plan: &PoolPlan, known: Option<&ApiSnapshot>) -> Option<ApiStatus> {
        let api = plan.api.as_ref()?;
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        Some(ApiStatus {
            desired: count(api.replicas),
            ready: known.map_or(0, |known| count(known.ready)),
            service: api_name(&plan.id),
            problem: self
                .problem
                .as_ref()
                .map(|problem| problem.message.to_string())
                .unwrap_or_default(),
        })
    }
}
