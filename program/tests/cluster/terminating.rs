//! A pod whose deletion never completes, as on a dead node, stops counting toward maxReplicas after a while.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use separation_testbed::eventually;
use serde_json::json;

use crate::members::{Member, Tasks};
use crate::rig::{Rig, SOON, post};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// The operator's margin of a minute for a deletion, and time for the test's other waits.
const OVERDUE: Duration = Duration::from_secs(120);

/// A node without a kubelet: deleted pods on it stay. It is removed with its pod at the end.
async fn bind_to_dead_node(rig: &Rig, pod: &str) -> String {
    let node = format!("dead-{}", rig.namespace);
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
    post("/api/v1/nodes", &object).accepted(&rig.admin).await;
    let target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target});
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/binding", rig.namespace);
    post(path, &binding).accepted(&rig.admin).await;
    node
}

#[tokio::test]
async fn a_pod_stuck_in_terminating_counts_toward_max_replicas_for_a_limited_time() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    let one = json!({"scaling": {"maxReplicas": 1}});
    pool.apply(&json!({"processor": one, "uploader": one})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish(0, "first").await;
    pool.until_replicas(1, SOON).await;
    let stuck = eventually("a pod", SOON, async || pool.pod_names().await.pop()).await;
    let node = bind_to_dead_node(&rig, &stuck).await;
    let member = Member::of(&pool, &stuck, Tasks::Commit);
    pool.until_replicas(0, SOON).await;
    drop(member);

    // It counts as draining, and maxReplicas is one.
    pool.publish(0, "second").await;
    pool.publish(0, "third").await;
    pool.until_status("held", SOON, |status| {
        let processor = status.processor.as_ref();
        processor.is_some_and(|role| role.reason == "HeldDraining" && role.replicas.draining == 1)
    })
    .await;
    assert_eq!(pool.replicas().await, Some(0));
    // Its grace period would be ten minutes.
    let soon = DeleteParams::default().grace_period(1);
    pool.pods().delete(&stuck, &soon).await.expect("it is deleted");
    pool.until_replicas(1, OVERDUE).await;
    pool.until_status("report", SOON, |status| {
        status.conditions.iter().any(|condition| {
            let names_pod =
                condition.message.contains(&stuck) && condition.message.contains("their node may be down");
            condition.reason == "PodsStuckTerminating" && condition.status == "True" && names_pod
        })
    })
    .await;
    // It was not force-deleted.
    assert!(pool.pods().get_opt(&stuck).await.expect("an answer").is_some());
    let now = DeleteParams::default().grace_period(0);
    pool.pods().delete(&stuck, &now).await.expect("it is deleted");
    let nodes: Api<Node> = Api::all(rig.admin.clone());
    nodes.delete(&node, &now).await.expect("it is deleted");
    operator.end().await;
}
