//! Every metric that the operator registers changes while it runs: one that cannot change has no information.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use separation_operator::metrics::Metrics;
use separation_testbed::eventually;
use serde_json::json;

use crate::members::{Member, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Constant: it has the version as a label.
const CONSTANT: &str = "separation_build_info";

/// Observed values of each family: those of all its series, in order.
#[derive(Default)]
struct ObservedValues(BTreeMap<String, BTreeSet<Vec<String>>>);

impl ObservedValues {
    /// Records the operator's current metrics.
    async fn record(&mut self, operator: &OperatorProcess) -> anyhow::Result<()> {
        let (_, text) = operator.get("/metrics").await?;
        for family in Metrics::new().families().iter().map(|family| &family.name) {
            let values = text
                .lines()
                .filter(|line| {
                    let rest = line.strip_prefix(family.as_str());
                    rest.is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
                })
                .map(str::to_owned)
                .collect();
            self.0.entry(family.clone()).or_default().insert(values);
        }
        Ok(())
    }

    /// Families that never changed, and those of the process that had no value: the operating system reports them, and
    /// some are constant.
    fn unchanged(&self) -> Vec<&str> {
        let unchanged = self.0.iter().filter(|(family, values)| {
            let is_of_process = family.starts_with("process_");
            if is_of_process {
                values.iter().all(Vec::is_empty)
            } else {
                values.len() < 2
            }
        });
        unchanged.map(|(family, _)| family.as_str()).collect()
    }
}

/// Revokes permissions of the operator, and restores them.
struct Permissions<'a> {
    rig: &'a Rig,
    all: Role,
}

impl<'a> Permissions<'a> {
    async fn read(rig: &'a Rig) -> Self {
        let roles: Api<Role> = Api::namespaced(rig.admin.clone(), &rig.namespace);
        let all = roles.get("separation-operator").await.expect("a role");
        Self { rig, all }
    }

    /// Keeps the permissions for which this is true, by resource.
    async fn only(&self, keep: impl Fn(&str) -> bool) {
        let rules = self.all.rules.iter().flatten();
        let kept: Vec<_> = rules
            .filter(|rule| rule.resources.iter().flatten().all(|resource| keep(resource)))
            .collect();
        let patch = Patch::Merge(json!({"rules": kept}));
        let roles: Api<Role> = Api::namespaced(self.rig.admin.clone(), &self.rig.namespace);
        roles
            .patch("separation-operator", &PatchParams::default(), &patch)
            .await
            .expect("a role");
    }
}

#[tokio::test]
async fn every_registered_family_changes_while_the_operator_runs() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    let rights = Permissions::read(&rig).await;
    // Without the permission to list pods the watch breaks repeatedly; events are refused.
    rights
        .only(|resource| resource != "pods" && resource != "events")
        .await;
    let operator = OperatorProcess::start(&rig);
    let mut seen = ObservedValues::default();
    eventually("broken watch", SOON, async || {
        seen.record(&operator).await?;
        anyhow::Ok(
            !seen
                .unchanged()
                .contains(&"separation_operator_watch_restarts_total"),
        )
    })
    .await;
    rights.only(|resource| resource != "events").await;
    operator.until_it_leads().await;

    // An unreachable Kafka, and a reachable one.
    let unreachable = PoolUnderTest::named(&rig, "unreachable", 1).await;
    unreachable
        .apply(&json!({"kafka": {"bootstrapServers": "127.0.0.1:1"}}))
        .await;
    let scaling = json!({
        "target": {"type": "DrainDeadline", "drainDeadlineSeconds": 60},
        "estimates": {"taskSeconds": 60},
    });
    let consumer = json!({"sessionTimeoutMs": 6_000, "heartbeatIntervalMs": 500});
    pool.apply(&json!({"processor": {"scaling": scaling, "consumer": consumer}}))
        .await;
    pool.until_adopted().await;
    seen.record(&operator).await.expect("metrics");
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    eventually("refused event", SOON, async || {
        let dropped = operator
            .metric("separation_operator_events_dropped_total")
            .await?;
        anyhow::Ok(dropped.is_some_and(|dropped| dropped > 0.0))
    })
    .await;

    // Two workers join, and one consumes a task; a third pod has no node.
    let pods = ready_pods(&pool, 3).await;
    eventually("ready pods that are not members", SOON, async || {
        seen.record(&operator).await?;
        let outside = operator.metric("separation_pool_replicas_not_members").await?;
        anyhow::Ok(outside == Some(3.0))
    })
    .await;
    let members: Vec<_> = pods[..2]
        .iter()
        .map(|pod| Member::of(&pool, pod, Tasks::Hold))
        .collect();
    let third = &pods[2];
    let unschedulable = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
    let status = Patch::Merge(json!({"status": {"phase": "Pending", "conditions": unschedulable}}));
    let api: Api<Pod> = pool.pods();
    api.patch_status(third, &PatchParams::default(), &status)
        .await
        .expect("a pod");
    eventually("busy, unschedulable", SOON, async || {
        seen.record(&operator).await?;
        let is_some = async |name: &str| {
            let value = operator.metric(&format!("separation_pool_{name}")).await?;
            anyhow::Ok(value.is_some_and(|value| value > 0.0))
        };
        let numbers = [
            "replicas_busy",
            "replicas_unschedulable",
            "oldest_message_age_seconds",
            "drain_seconds",
        ];
        for name in numbers {
            anyhow::ensure!(is_some(name).await?, "{name} is 0");
        }
        anyhow::Ok(true)
    })
    .await;
    // A pod that terminates slowly.
    let finalizer = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/waits"]}}));
    api.patch(third, &PatchParams::default(), &finalizer)
        .await
        .expect("a pod");
    api.delete(third, &DeleteParams::default()).await.expect("a pod");
    eventually("draining pod", SOON, async || {
        seen.record(&operator).await?;
        let draining = operator.metric("separation_pool_replicas_draining").await?;
        anyhow::Ok(draining.is_some_and(|draining| draining > 0.0))
    })
    .await;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(third, &PatchParams::default(), &none)
        .await
        .expect("a pod");

    // The work is done: idle workers, and fewer of them.
    for member in &members {
        member.now(Tasks::Commit);
    }
    // Fewer workers after the stabilization, and after the third pod was removed.
    eventually("change of every family", 3 * SOON, async || {
        seen.record(&operator).await?;
        let unchanged = seen.unchanged();
        anyhow::ensure!(unchanged == [CONSTANT], "unchanged: {unchanged:?}");
        anyhow::Ok(true)
    })
    .await;
    operator.end().await;
}

/// Waits until this many roles have a known lag.
async fn until_known(operator: &OperatorProcess, expected: f64) {
    eventually("number of roles with known lag", SOON, async || {
        let known = operator.metric("separation_pool_lag_known").await?;
        anyhow::ensure!(known == Some(expected), "{known:?}");
        anyhow::Ok(true)
    })
    .await;
}

#[tokio::test]
async fn a_disabled_role_has_no_metrics_and_the_lag_is_unknown_while_the_spec_is_invalid() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    until_known(&operator, 2.0).await;
    let disabled = json!({"enabled": false});
    pool.apply(&json!({"uploader": disabled})).await;
    until_known(&operator, 1.0).await;
    // The CRD has no schema of this field.
    let invalid = json!({"podTemplate": {"spec": {"hostNetwork": true}}});
    pool.apply(&json!({"processor": invalid, "uploader": disabled}))
        .await;
    until_known(&operator, 0.0).await;
    pool.apply(&json!({"uploader": disabled})).await;
    until_known(&operator, 1.0).await;
    operator.end().await;
}
