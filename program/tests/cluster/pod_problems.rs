//! Problems of pods are reported with the cluster's own reasons, and do not add pods.

use kube::api::{Patch, PatchParams};
use separation_operator::crd::SeparationPoolStatus;
use separation_testbed::eventually;
use serde_json::{Value, json};

use crate::manifests;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

impl PoolUnderTest<'_> {
    /// The names of `count` pods, once they exist.
    async fn until_pods(&self, count: usize) -> Vec<String> {
        eventually("number of pods", SOON, async || {
            let names = self.pod_names().await;
            (names.len() == count).then_some(names)
        })
        .await
    }

    /// Sets a pod's status as a scheduler or a kubelet would.
    async fn pod_status(&self, name: &str, status: &Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods()
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .expect("a pod");
    }

    /// The message of `Degraded` with this reason.
    async fn until_degraded(&self, reason: &str) -> String {
        let degraded = |status: &SeparationPoolStatus| {
            let found = status.conditions.iter().find(|found| found.type_ == "Degraded");
            found
                .filter(|found| found.status == "True" && found.reason == reason)
                .map(|found| found.message.clone())
        };
        let status = self
            .until_status(reason, SOON, |status| degraded(status).is_some())
            .await;
        degraded(&status).expect("it is there")
    }
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{
        "name": "worker", "image": "separation-worker:test", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
    }]})
}

#[tokio::test]
async fn unschedulable_pods_are_reported_with_the_schedulers_message_and_no_more_are_added() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    let pods = pool.until_pods(2).await;
    let scheduler_message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": scheduler_message}]);
    pool.pod_status(&pods[0], &json!({"phase": "Pending", "conditions": condition}))
        .await;
    let message = pool.until_degraded("Unschedulable").await;
    assert!(message.contains(scheduler_message), "{message}");
    pool.publish_one_each(4).await;
    let status = pool
        .until_status("limit", SOON, |status| {
            status
                .processor
                .as_ref()
                .is_some_and(|role| role.reason == "HeldUnschedulable")
        })
        .await;
    let processor = status.processor.expect("a processor");
    assert_eq!(
        (processor.replicas.desired, processor.replicas.unschedulable),
        (2, 1)
    );
    operator.until_read_again(6.0).await;
    assert_eq!(pool.replicas().await, Some(2));
    // A node is added.
    let scheduled = json!([{"type": "PodScheduled", "status": "True"}]);
    pool.pod_status(&pods[0], &json!({"phase": "Pending", "conditions": scheduled}))
        .await;
    pool.until_replicas(4, SOON).await;
    operator.end().await;
}

#[tokio::test]
async fn containers_that_cannot_start_are_reported_with_their_reason() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(1).await;
    pool.until_replicas(1, SOON).await;
    let pods = pool.until_pods(1).await;
    for (reason, text) in [
        (
            "ImagePullBackOff",
            "Back-off pulling image \"separation-worker:test\"",
        ),
        ("CreateContainerConfigError", "secret \"s3\" not found"),
        (
            "CrashLoopBackOff",
            "back-off 5m0s restarting failed container=worker",
        ),
    ] {
        pool.pod_status(&pods[0], &waiting(reason, text)).await;
        let message = pool.until_degraded(reason).await;
        assert!(message.contains(text), "{message}");
    }
    assert_eq!(pool.replicas().await, Some(1));
    let running = json!({"phase": "Running",
                         "conditions": [{"type": "Ready", "status": "True"}],
                         "containerStatuses": null});
    pool.pod_status(&pods[0], &running).await;
    pool.until_status("recovery", SOON, |status| {
        let holds = |type_: &str, expected: &str| {
            let found = status.conditions.iter().find(|found| found.type_ == type_);
            found.is_some_and(|found| found.status == expected)
        };
        holds("Degraded", "False") && holds("Ready", "True")
    })
    .await;
    operator.end().await;
}

#[tokio::test]
async fn pods_refused_by_a_quota_are_reported_with_its_message() {
    let rig = Rig::new().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
                       "metadata": {"name": "two-pods", "namespace": rig.namespace},
                       "spec": {"hard": {"pods": "2"}}});
    manifests::apply(&rig.admin, &quota).await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(4).await;
    pool.until_replicas(4, SOON).await;
    let message = pool.until_degraded("FailedCreate").await;
    assert!(message.contains("exceeded quota: two-pods"), "{message}");
    pool.until_pods(2).await;
    operator.end().await;
}
