//! State of a pool's HTTP API, its next step, and its report for the status. Pure.

use std::collections::BTreeMap;

use super::retry::{FieldManagerConflict, Pause, Retry};
use super::rollout::STALLED_AFTER;
use super::secrets::{SecretCache, SecretName, SecretState};
use crate::apply::api_name;
use crate::crd::ApiStatus;
use crate::decide::{Moment, Workload};
use crate::names::{API_COMPONENT, ROLE_LABEL};
use crate::observe::api::{ApiObject, ApiSnapshot, KnownApi};
use crate::observe::workload::{WorkloadProblem, stuck_terminating};
use crate::plan::{ApiPlan, PoolPlan, SecretKey, Staging};
use crate::status::ApiReport;

/// Most KiB of API keys: an environment variable of Linux has at most 128, its name included.
const MAX_API_KEYS_KIB: usize = 100;

/// State of a pool's API.
#[derive(Debug, Default)]
pub(super) struct ApiState {
    is_busy: bool,
    pub(super) retry: Retry,
    /// Why the last step failed, if a user must fix it.
    problem: Option<WorkloadProblem>,
    /// Problems of the Secrets of its clients.
    pub(super) secret_problems: Vec<WorkloadProblem>,
    /// Pods whose deletion is overdue.
    stuck: Option<WorkloadProblem>,
    /// Since when no pod has been ready, while the plan has pods.
    unready_since: Option<Moment>,
    /// What the planned objects were last built from, and their hash.
    pub(super) planned: Option<PlannedApi>,
    /// The fields of each object that the operator owned after its last write.
    written: [Option<u64>; 3],
    /// Edits of the objects by other field managers.
    field_manager_conflict: FieldManagerConflict,
}

/// The inputs of the planned objects that change within one spec, and the hash of the objects.
#[derive(Debug)]
pub(super) struct PlannedApi {
    pub(super) replicas: u32,
    pub(super) staging: Staging,
    pub(super) secrets_hash: Option<String>,
    pub(super) manifest_hash: String,
}

/// What is done next for a pool's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiStep {
    /// Write all of its objects as planned.
    Apply,
    /// Delete all of its objects.
    Delete,
}

impl ApiState {
    /// Whether a step is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// The next step; none while a step is in progress, a retry is not due, or the Secrets were not read yet. The
    /// caller starts it.
    pub(super) fn next(
        &mut self,
        plan: &PoolPlan,
        known: KnownApi<'_>,
        pool_uid: &str,
        now: Moment,
    ) -> Option<ApiStep> {
        if self.is_busy || !self.retry.may_attempt(now) {
            return None;
        }
        self.field_manager_conflict.forget(now);
        let step = match &plan.api {
            Some(api) => self.next_apply(api, known, pool_uid, now)?,
            None => {
                let mut objects = known.objects().into_iter().flatten();
                if !objects.any(|object| object.belongs_to(pool_uid)) {
                    self.forget_failure();
                    return None;
                }
                ApiStep::Delete
            }
        };
        self.is_busy = true;
        Some(step)
    }

    fn next_apply(
        &mut self,
        api: &ApiPlan,
        known: KnownApi<'_>,
        pool_uid: &str,
        now: Moment,
    ) -> Option<ApiStep> {
        let planned = self.planned.as_ref()?;
        // The last one is the service account, unless the pool names another.
        let count = 2 + usize::from(api.pod.service_account_name.is_none());
        let objects = || known.objects().into_iter().zip(self.written).take(count);
        let is_current = |(object, written): (Option<&ApiObject>, Option<u64>)| {
            object.is_some_and(|object| {
                object.owner.as_deref() == Some(pool_uid) && !is_edited(object, written)
            })
        };
        let hash = known
            .deployment
            .and_then(|known| known.deployment.manifest_hash.as_deref());
        if hash == Some(&*planned.manifest_hash) && objects().all(is_current) {
            self.forget_failure();
            return None;
        }
        // An edit from before a restart is not counted.
        let is_new_edit = |(object, written): (Option<&ApiObject>, Option<u64>)| {
            written.is_some() && object.is_some_and(|object| is_edited(object, written))
        };
        if objects().any(is_new_edit) {
            if !self.field_manager_conflict.may_revert(now) {
                return None;
            }
            self.field_manager_conflict.record_revert(now);
        }
        Some(ApiStep::Apply)
    }

    /// Its objects are as planned, so that nothing is left of an earlier failure.
    fn forget_failure(&mut self) {
        self.retry.succeeded();
        self.problem = None;
    }

    /// Records its pods, with the plan as it may be applied.
    pub(super) fn record_pods(
        &mut self,
        plan: &PoolPlan,
        known: Option<&ApiSnapshot>,
        pods: &Workload,
        now: Moment,
    ) {
        self.stuck = stuck_terminating(pods);
        self.unready_since = has_no_ready_pod(plan, known).then(|| self.unready_since.unwrap_or(now));
    }

    /// The problem to report when no pod has been ready for [`STALLED_AFTER`]. Kubernetes reports pods that are not
    /// ready only until the first pods of a template were.
    pub(super) fn unready_problem(&self, now: Moment) -> Option<WorkloadProblem> {
        let since = self.unready_since?;
        let message = format!(
            "no pod has been ready for {} minutes; fix: read kubectl describe pods and kubectl logs, each with \
             --selector {ROLE_LABEL}={API_COMPONENT}",
            STALLED_AFTER.as_secs() / 60
        );
        (now.since(since) >= STALLED_AFTER).then(|| WorkloadProblem::new("PodsNotReady", Some(&message)))
    }

    /// The step in progress succeeded; `written` are the objects, if they were not deleted.
    pub(super) fn succeeded(&mut self, written: Option<KnownApi<'_>>) {
        self.is_busy = false;
        self.retry.succeeded();
        self.problem = None;
        self.written = written
            .unwrap_or_default()
            .objects()
            .map(|object| object?.our_fields);
    }

    /// The step in progress failed.
    pub(super) fn failed(&mut self, problem: Option<WorkloadProblem>, pause: Pause, now: Moment) {
        self.is_busy = false;
        self.problem = problem;
        self.retry.failed(pause, now);
    }

    /// Its own problems for a user to fix, without those of its Deployment and pods.
    pub(super) fn problems(&self) -> Vec<WorkloadProblem> {
        let own = self.problem.iter().chain(&self.secret_problems).cloned();
        let conflict = self.field_manager_conflict.problem();
        own.chain(conflict).chain(self.stuck.clone()).collect()
    }

    /// The report for the status, with all of its problems.
    pub(super) fn report(
        &self,
        plan: &PoolPlan,
        known: Option<&ApiSnapshot>,
        problems: Vec<WorkloadProblem>,
    ) -> ApiReport {
        let Some(api) = &plan.api else {
            return ApiReport {
                problems,
                ..ApiReport::default()
            };
        };
        let planned = self.planned.as_ref().map(|planned| &*planned.manifest_hash);
        let is_current = known
            .is_some_and(|known| known.is_rolled_out && known.deployment.manifest_hash.as_deref() == planned);
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let problem = self.problem.as_ref();
        ApiReport {
            status: Some(ApiStatus {
                desired: count(api.replicas),
                ready: known.map_or(0, |known| count(known.ready)),
                service: api_name(&plan.id),
                problem: problem
                    .map(|problem| problem.message.to_string())
                    .unwrap_or_default(),
            }),
            is_rolling_out: !is_current || has_no_ready_pod(plan, known),
            problems,
            ..ApiReport::default()
        }
    }
}

/// Whether the plan has pods of the API and none is ready.
fn has_no_ready_pod(plan: &PoolPlan, known: Option<&ApiSnapshot>) -> bool {
    let has_pods = plan.api.as_ref().is_some_and(|api| api.replicas > 0);
    has_pods && known.is_none_or(|known| known.ready == 0)
}

/// Whether another field manager has taken fields of an object since the operator's last write; after a restart, whether
/// another one owns fields of its spec.
fn is_edited(object: &ApiObject, written: Option<u64>) -> bool {
    match written {
        Some(_) => object.our_fields != written,
        None => object.is_edited,
    }
}

/// The problems to report of Secrets that lack the credentials or the signing secrets of the API's clients, cannot be
/// read, or are too large: one for each Secret.
pub(super) fn secret_problems(secrets: &SecretCache, plan: &PoolPlan) -> Vec<WorkloadProblem> {
    let mut keys_by_secret: BTreeMap<SecretName, Vec<&SecretKey>> = BTreeMap::new();
    for key in plan.api_client_secret_keys() {
        let secret = SecretName::of(&plan.id, key);
        keys_by_secret.entry(secret).or_default().push(key);
    }
    let problems = keys_by_secret.iter();
    let problems = problems.filter_map(|(secret, keys)| secret_problem(secrets, plan, secret, keys));
    problems.collect()
}

/// The problem of one Secret, which should have these Secret keys.
fn secret_problem(
    secrets: &SecretCache,
    plan: &PoolPlan,
    secret: &SecretName,
    keys: &[&SecretKey],
) -> Option<WorkloadProblem> {
    let SecretName { namespace, name } = secret;
    let (reason, message) = match secrets.state(secret) {
        SecretState::NotYet => return None,
        SecretState::Failed(why) => {
            let fix = format!("allow the operator's service account to get Secrets in namespace {namespace}");
            (
                "SecretUnreadable",
                format!("{why}; fix: if that is forbidden, {fix}"),
            )
        }
        SecretState::Done => {
            let missing = keys.iter().filter(|key| secrets.text(&plan.id, key).is_none());
            let missing: Vec<&SecretKey> = missing.copied().collect();
            if missing.is_empty() {
                return too_large(secrets, plan, secret);
            }
            let values: String = missing.iter().map(|key| argument(plan, key)).collect();
            let names: Vec<&str> = missing.iter().map(|key| &*key.key).collect();
            let names = names.join(", ");
            let message = format!(
                "Secret {namespace}/{name} does not exist or lacks {names}, so the API's pods cannot start; \
                 fix: kubectl create secret generic {name} --namespace {namespace}{values}"
            );
            ("SecretMissing", message)
        }
    };
    Some(problem(reason, message))
}

/// The problem of a Secret whose API keys do not fit into an environment variable.
fn too_large(secrets: &SecretCache, plan: &PoolPlan, secret: &SecretName) -> Option<WorkloadProblem> {
    let keys = plan.api.as_ref()?.keys.as_ref()?;
    if SecretName::of(&plan.id, keys) != *secret {
        return None;
    }
    let bytes = secrets.text(&plan.id, keys)?.len();
    let SecretName { namespace, name } = secret;
    let message = format!(
        "Secret {namespace}/{name} has {bytes} bytes in {}, so the API's pods may not start: Linux limits an environment \
         variable to 128 KiB; fix: keep the API keys below {MAX_API_KEYS_KIB} KiB, or divide the clients among several \
         pools",
        keys.key
    );
    (bytes > MAX_API_KEYS_KIB * 1024).then(|| problem("SecretTooLarge", message))
}

/// A problem whose message is not shortened: the fix is its end.
fn problem(reason: &'static str, message: String) -> WorkloadProblem {
    WorkloadProblem {
        reason: reason.into(),
        message: message.into(),
    }
}

/// The argument of `kubectl create secret` for a Secret key. API keys are a file, because they are JSON.
fn argument(plan: &PoolPlan, key: &SecretKey) -> String {
    let keys = plan.api.as_ref().and_then(|api| api.keys.as_ref());
    let name = &key.key;
    match keys == Some(key) {
        true => format!(" --from-file={name}=FILE"),
        false => format!(" --from-literal={name}=VALUE"),
    }
}

#[cfg(test)]
mod tests;
