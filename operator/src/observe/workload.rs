//! Deployments and pods, as decisions see them. Pure: what watches keep is passed in.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::decide::{self, Marked, PodState, Workload};
use crate::names::{DELETION_COST, MARKED_COST};

/// What the cluster runs for a role: its Deployment, if there is one, and the pods with its labels.
pub fn workload<'a>(deployment: Option<&Deployment>, pods: impl IntoIterator<Item = &'a Pod>) -> Workload {
    let replicas = deployment.map_or(0, |deployment| {
        // The API server fills in 1 where nothing is said.
        u32::try_from(deployment.spec.replicas.unwrap_or(1)).unwrap_or(0)
    });
    Workload {
        replicas,
        pods: pods.into_iter().filter_map(seen).collect(),
    }
}

fn seen(pod: &Pod) -> Option<decide::Pod> {
    Some(decide::Pod {
        name: pod.metadata.name.as_deref()?.into(),
        state: state(pod)?,
        marked: marked(pod),
    })
}

/// What a pod is doing; none for one that has ended and is only remembered.
fn state(pod: &Pod) -> Option<PodState> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(PodState::Draining);
    }
    let unschedulable = |condition: &PodCondition| {
        condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    };
    if condition(pod, "PodScheduled").is_some_and(unschedulable) {
        return Some(PodState::Unschedulable);
    }
    let ready = condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    Some(if ready {
        PodState::Ready
    } else {
        PodState::NotReady
    })
}

fn marked(pod: &Pod) -> Marked {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    if cost.is_some_and(|cost| cost == MARKED_COST) {
        Marked::Yes
    } else {
        Marked::No
    }
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: &Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": []}});
        for part in ["metadata", "status"] {
            for (name, value) in change[part].as_object().into_iter().flatten() {
                pod[part][name] = value.clone();
            }
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn conditions(type_: &str, status: &str, reason: &str) -> Value {
        json!({"phase": "Pending", "conditions": [{"type": type_, "status": status, "reason": reason}]})
    }

    #[track_caller]
    fn check(change: &Value, expected: Option<PodState>) {
        let pod = pod(change);
        let seen = workload(None, [&pod]).pods;
        assert_eq!(seen.first().map(|pod| pod.state), expected);
    }

    #[test]
    fn pods_are_told_apart_by_what_they_are_doing() {
        check(&json!({}), Some(PodState::NotReady));
        check(
            &json!({"status": conditions("Ready", "True", "")}),
            Some(PodState::Ready),
        );
        check(
            &json!({"status": conditions("Ready", "False", "")}),
            Some(PodState::NotReady),
        );
        let unschedulable = conditions("PodScheduled", "False", "Unschedulable");
        check(&json!({"status": unschedulable}), Some(PodState::Unschedulable));
        let gated = conditions("PodScheduled", "False", "SchedulingGated");
        check(&json!({"status": gated}), Some(PodState::NotReady));
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(
            &json!({"metadata": deleted, "status": conditions("Ready", "True", "")}),
            Some(PodState::Draining),
        );
        check(
            &json!({"metadata": deleted, "status": {"phase": "Succeeded"}}),
            None,
        );
        check(&json!({"status": {"phase": "Failed"}}), None);
    }

    #[test]
    fn only_our_own_mark_is_a_mark() {
        let costs = [(MARKED_COST, Marked::Yes), ("5", Marked::No), ("-1", Marked::No)];
        for (cost, expected) in costs {
            let pod = pod(&json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
            assert_eq!(workload(None, [&pod]).pods[0].marked, expected);
        }
    }

    #[test]
    fn replicas_are_those_asked_for_and_none_without_a_deployment() {
        assert_eq!(workload(None, []).replicas, 0);
        let deployment = |replicas: Value| {
            let mut deployment = json!({"metadata": {}, "spec": {"selector": {}, "template": {}}});
            deployment["spec"]["replicas"] = replicas;
            serde_json::from_value::<Deployment>(deployment).expect("a deployment")
        };
        assert_eq!(workload(Some(&deployment(json!(7))), []).replicas, 7);
        assert_eq!(workload(Some(&deployment(Value::Null)), []).replicas, 1);
    }
}
