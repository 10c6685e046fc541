//! Edits of our Deployments by other clients: our fields are restored, other fields stay, and conflicts end.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use separation_testbed::eventually;
use serde_json::{Value, json};

use crate::manifests;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

impl PoolUnderTest<'_> {
    /// Changes the processor's Deployment as another field manager.
    async fn edit(&self, manager: &str, change: &Value) -> Deployment {
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        self.deployments()
            .patch(&self.deployment_name(), &params, &Patch::Merge(change))
            .await
            .expect("it may be changed")
    }

    /// A pool with an operator and `count` busy workers.
    async fn with_work(&self, partitions: i32) -> OperatorProcess {
        self.apply(&json!({})).await;
        let operator = OperatorProcess::start(self.rig);
        self.until_adopted().await;
        self.publish_one_each(partitions).await;
        self.until_replicas(partitions, SOON).await;
        operator
    }
}

fn replicas(number: i32) -> Value {
    json!({"spec": {"replicas": number}})
}

fn image(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.template.spec.as_ref()?;
    pod.containers.first()?.image.as_deref()
}

/// Our successful writes of the processor's Deployment; refused ones (conflicts) do not count.
fn deployment_writes(rig: &Rig) -> usize {
    let writes = manifests::writes(rig).into_iter();
    writes
        .filter(|write| {
            write.resource == "deployments" && write.name.ends_with("-processor") && write.status < 300
        })
        .count()
}

#[tokio::test]
async fn replicas_written_by_another_client_become_the_desired_replicas() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    let operator = pool.with_work(3).await;
    for wrong in [1, 0, 7] {
        let before = deployment_writes(&rig);
        pool.edit("kubectl", &replicas(wrong)).await;
        pool.until_replicas(3, SOON).await;
        let writes = deployment_writes(&rig) - before;
        assert!((1..=3).contains(&writes), "{writes} writes from {wrong} to 3");
    }
    operator.end().await;
}

#[tokio::test]
async fn changes_to_our_fields_are_reverted_and_added_fields_stay() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let operator = pool.with_work(2).await;
    let before = pool.deployment().await;
    let labels =
        json!({"metadata": {"labels": {"team": "audio"}, "annotations": {"example.com/note": "kept"}}});
    pool.edit("a-team", &labels).await;
    let name = before.spec.template.spec.as_ref().expect("a pod").containers[0]
        .name
        .clone();
    let change = json!({"spec": {"template": {
        "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
        "spec": {"containers": [{"name": name, "image": "another:1"}]},
    }}});
    let writes = deployment_writes(&rig);
    let strategic = PatchParams {
        field_manager: Some("kubectl-set".to_owned()),
        ..PatchParams::default()
    };
    let changed = pool
        .deployments()
        .patch(&pool.deployment_name(), &strategic, &Patch::Strategic(&change))
        .await
        .expect("it may be changed");
    assert_eq!(image(&changed), Some("another:1"));
    eventually("our image", SOON, async || {
        image(&pool.deployment().await) == image(&before)
    })
    .await;
    operator.until_read_again(8.0).await;
    let now = pool.deployment().await;
    let metadata = &now.metadata;
    assert_eq!(metadata.labels.as_ref().expect("labels")["team"], "audio");
    let annotations = metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations["example.com/note"], "kept");
    let template = now.spec.template.metadata.as_ref().expect("metadata");
    let annotations = template.annotations.as_ref().expect("annotations");
    assert_eq!(annotations["kubectl.kubernetes.io/restartedAt"], "now");
    assert_eq!(now.spec.replicas, Some(2));
    assert_eq!(deployment_writes(&rig) - writes, 1, "{}", operator.log());
    operator.end().await;
}

#[tokio::test]
async fn repeated_edits_by_another_manager_are_reverted_with_growing_delay() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let operator = pool.with_work(2).await;
    let before = deployment_writes(&rig);
    let mut theirs = 0;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if pool.replicas().await == Some(2) {
            pool.edit("another-autoscaler", &replicas(1)).await;
            theirs += 1;
        }
    }
    let ours = deployment_writes(&rig) - before;
    assert!(theirs > 1, "it was reverted");
    assert!(ours <= 12, "{ours} writes against {theirs}");
    pool.until_status("field manager conflict", SOON, |status| {
        let degraded = status.conditions.iter().find(|found| found.type_ == "Degraded");
        degraded.is_some_and(|found| found.reason == "FieldManagerConflict")
    })
    .await;
    // Once the other manager stops, the Deployment is correct.
    pool.until_replicas(2, SOON).await;
    operator.end().await;
}

#[tokio::test]
async fn a_deleted_deployment_is_recreated_with_all_replicas() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let operator = pool.with_work(2).await;
    let before = pool.deployment().await;
    pool.deployments()
        .delete(&pool.deployment_name(), &DeleteParams::default())
        .await
        .expect("a Deployment");
    eventually("new Deployment", SOON, async || {
        let now = pool.deployment().await;
        now.metadata.uid != before.metadata.uid && now.spec.replicas == Some(2)
    })
    .await;
    operator.end().await;
}

#[tokio::test]
async fn a_deployment_without_our_labels_is_still_managed() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let operator = pool.with_work(2).await;
    let before = pool.deployment().await;
    let change = json!({"metadata": {"labels": {"separation.dev/pool": null, "separation.dev/role": null}}});
    pool.edit("kubectl-label", &change).await;
    eventually("our labels", SOON, async || {
        pool.deployment().await.metadata.labels == before.metadata.labels
    })
    .await;
    let now = pool.deployment().await;
    assert_eq!(now.metadata.uid, before.metadata.uid);
    assert_eq!(now.spec.replicas, Some(2));
    operator.end().await;
}

#[tokio::test]
async fn a_copy_of_a_deployment_under_another_name_is_ignored() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    let operator = pool.with_work(2).await;
    let mut copy = pool.deployment().await;
    copy.metadata = kube::core::ObjectMeta {
        name: Some("a-copy".to_owned()),
        labels: copy.metadata.labels,
        annotations: copy.metadata.annotations,
        ..Default::default()
    };
    copy.spec.replicas = Some(0);
    copy.status = None;
    pool.deployments()
        .create(&PostParams::default(), &copy)
        .await
        .expect("a copy");
    pool.publish_one_each(4).await;
    pool.until_replicas(4, SOON).await;
    let copy = pool.deployments().get("a-copy").await.expect("the copy");
    assert_eq!(copy.spec.replicas, Some(0));
    operator.end().await;
}

#[tokio::test]
async fn a_foreign_deployment_with_the_same_name_is_unchanged_and_reported_with_a_fix() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    let foreign = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": pool.deployment_name()},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {"metadata": {"labels": {"app": "theirs"}},
                         "spec": {"containers": [{"name": "theirs", "image": "theirs:1"}]}},
        },
    });
    let foreign: Deployment = serde_json::from_value(foreign).expect("a Deployment");
    pool.deployments()
        .create(&PostParams::default(), &foreign)
        .await
        .expect("a Deployment");
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    let status = pool
        .until_status("refusal", SOON, |status| {
            let degraded = status.conditions.iter().find(|found| found.type_ == "Degraded");
            degraded.is_some_and(|found| found.reason == "NameTaken")
        })
        .await;
    let degraded = status.conditions.iter().find(|found| found.type_ == "Degraded");
    let message = &degraded.expect("it is there").message;
    assert!(message.contains("fix: delete or rename it"), "{message}");
    let now = pool.deployment().await;
    assert_eq!(image(&now), Some("theirs:1"));
    assert_eq!(now.metadata.generation, Some(1));
    // A new spec is written immediately.
    pool.deployments()
        .delete(&pool.deployment_name(), &DeleteParams::default())
        .await
        .expect("a Deployment");
    pool.apply(&json!({"processor": {"scaling": {"minReplicas": 1}}}))
        .await;
    pool.until_replicas(1, Duration::from_secs(10)).await;
    operator.end().await;
}
