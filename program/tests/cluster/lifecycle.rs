//! Life of a pool from creation to deletion, and of an operator.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use separation_operator::crd::{EstimatesStatus, SeparationPoolStatus};
use separation_operator::names::MANIFEST_HASH;
use separation_testbed::eventually;
use serde_json::{Value, json};

use crate::adoption::known_lag;
use crate::manifests;
use crate::members::{Member, TASK_TIME, Tasks, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

impl PoolUnderTest<'_> {
    async fn deployment_of(&self, role: &str) -> Deployment {
        let name = format!("{}-{role}", self.name);
        self.deployments().get(&name).await.expect("a Deployment")
    }
}

/// A condition's status, reason and message.
fn condition(status: &SeparationPoolStatus, type_: &str) -> Option<(String, String, String)> {
    let found = status.conditions.iter().find(|found| found.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn template(deployment: &Deployment) -> (Value, Option<String>) {
    let annotations = deployment.metadata.annotations.as_ref();
    (
        serde_json::to_value(&deployment.spec.template).expect("JSON"),
        annotations.and_then(|annotations| annotations.get(MANIFEST_HASH).cloned()),
    )
}

#[tokio::test]
async fn a_pool_owns_its_deployments_and_a_changed_setting_rolls_only_the_affected_role() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    let object = pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    for role in ["processor", "uploader"] {
        let deployment = pool.deployment_of(role).await;
        assert_eq!(deployment.spec.replicas, Some(0));
        let owners = deployment.metadata.owner_references.clone().expect("owners");
        let [owner] = &owners[..] else {
            panic!("{owners:?}")
        };
        assert_eq!(Some(&owner.uid), object.metadata.uid.as_ref());
        assert_eq!(owner.controller, Some(true));
        assert_ne!(owner.block_owner_deletion, Some(true));
        assert!(template(&deployment).1.is_some());
    }
    let before = (
        pool.deployment_of("processor").await,
        pool.deployment_of("uploader").await,
    );
    pool.apply(&json!({"processor": {"taskDeadlineSeconds": 333}}))
        .await;
    eventually("new template", SOON, async || {
        template(&pool.deployment_of("processor").await) != template(&before.0)
    })
    .await;
    let changed = pool.deployment_of("processor").await;
    assert_ne!(template(&changed).0, template(&before.0).0);
    assert_ne!(template(&changed).1, template(&before.0).1);
    pool.apply(&json!({"processor": {
        "taskDeadlineSeconds": 333,
        "scaling": {"minReplicas": 2, "maxReplicas": 4},
    }}))
    .await;
    pool.until_replicas(2, SOON).await;
    assert_eq!(
        template(&pool.deployment_of("processor").await),
        template(&changed)
    );
    let uploader = pool.deployment_of("uploader").await;
    assert_eq!(uploader.metadata.generation, before.1.metadata.generation);
    operator.end().await;
}

#[tokio::test]
async fn a_deleted_pools_deployments_are_deleted_and_its_topics_are_no_longer_read() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    let series = async || -> anyhow::Result<Vec<String>> {
        let (_, text) = operator.get("/metrics").await?;
        let ours = text
            .lines()
            .filter(|line| line.starts_with("separation_pool_") || line.contains("_kafka_"));
        Ok(ours.map(str::to_owned).collect())
    };
    let before = series().await.expect("metrics");
    assert!(
        before.iter().any(|line| line.contains(r#"pool="vocals""#)),
        "{before:?}"
    );
    pool.pools()
        .delete(&pool.name, &DeleteParams::default())
        .await
        .expect("a pool");
    // No series of the pool or of the cluster, which no other pool uses: Kafka is not polled any more.
    eventually("end of all series", SOON, async || match series().await {
        Ok(left) if left.is_empty() => Ok(Some(())),
        Ok(left) => Err(anyhow::anyhow!("{left:?}")),
        Err(error) => Err(error),
    })
    .await;
    eventually("end of the Deployments", SOON, async || {
        let left = pool.deployments().list(&Default::default()).await?;
        anyhow::Ok(left.items.is_empty())
    })
    .await;
    operator.end().await;
}

#[tokio::test]
async fn a_pool_recreated_immediately_under_its_name_works() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 6).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    for _ in 0..3 {
        pool.pools()
            .delete(&pool.name, &DeleteParams::default())
            .await
            .expect("a pool");
        let again = pool.apply(&json!({})).await;
        pool.until_adopted().await;
        eventually("Deployment of the new pool", SOON, async || {
            let deployment = pool.deployments().get(&pool.deployment_name()).await?;
            let owners = deployment.metadata.owner_references.unwrap_or_default();
            let uids: Vec<_> = owners.into_iter().map(|owner| owner.uid).collect();
            let is_ours = deployment.metadata.deletion_timestamp.is_none()
                && uids == again.metadata.uid.iter().cloned().collect::<Vec<_>>();
            anyhow::Ok(is_ours && deployment.spec.replicas == Some(2))
        })
        .await;
    }
    // Whether the garbage collector has deleted the old Deployments or not, the pool scales up.
    pool.publish_one_each(6).await;
    pool.until_replicas(6, SOON).await;
    operator.end().await;
}

#[tokio::test]
async fn an_invalid_spec_is_reported_with_field_and_fix_and_its_workers_continue() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    let before = pool.deployment().await;
    let ready = |status: &SeparationPoolStatus| condition(status, "Ready");
    let initialized = |status: &SeparationPoolStatus| {
        let offsets = status.processor.as_ref()?.offsets.as_ref()?;
        Some(offsets.initialized_time.clone())
    };
    let adopted = pool.until_adopted().await;
    // The CRD has a schema of neither field.
    for (generation, fields, named) in [
        (
            2,
            json!({"podTemplate": {"spec": {"hostNetwork": true}}}),
            "spec.processor.podTemplate.spec.hostNetwork",
        ),
        (
            3,
            json!({"affinity": {"nodeAffinity": "gpu"}}),
            "spec.processor.affinity",
        ),
    ] {
        pool.apply(&json!({"processor": fields})).await;
        let status = pool
            .until_status("refusal", SOON, |status| {
                let invalid = ready(status)
                    .is_some_and(|(status, reason, _)| status == "False" && reason == "InvalidSpec");
                invalid && status.observed_generation == Some(generation)
            })
            .await;
        let (_, _, message) = ready(&status).expect("it is there");
        assert!(
            message.starts_with(named) && message.contains("fix:"),
            "{message}"
        );
        let stalled = condition(&status, "Stalled").map(|(status, reason, _)| (status, reason));
        assert_eq!(stalled, Some(("True".to_owned(), "InvalidSpec".to_owned())));
        assert_eq!(initialized(&status), initialized(&adopted));
    }
    pool.publish_one_each(4).await;
    let now = pool.deployment().await;
    assert_eq!(now.metadata.generation, before.metadata.generation);
    // An operator that starts now knows no earlier spec, and still does not change workers.
    operator.end().await;
    let operator = OperatorProcess::start(&rig);
    operator.until_it_leads().await;
    pool.apply(&json!({})).await;
    pool.until_replicas(4, SOON).await;
    let status = pool
        .until_status("recovery", SOON, |status| {
            let stalled = condition(status, "Stalled");
            ready(status).is_some_and(|(status, ..)| status == "True")
                && stalled.is_some_and(|(status, ..)| status == "False")
        })
        .await;
    assert_eq!(initialized(&status), initialized(&adopted));
    operator.end().await;
}

/// A value of every field of pods.
fn fields_of_pods() -> Value {
    let preference = json!({"matchExpressions": [{"key": "disk", "operator": "Exists"}]});
    json!({
        "image": "another:1",
        "resources": {"requests": {"cpu": 3, "memory": "2Gi"}, "limits": {"memory": "3Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "disk", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": preference}],
        }},
        "serviceAccountName": "another",
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "batch",
        "env": [
            {"name": "ONE", "value": "1"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "podTemplate": {
            "metadata": {"labels": {"team": "audio"}},
            "spec": {
                "hostname": "songs",
                "containers": [{"name": "worker", "volumeMounts": [{"name": "models", "mountPath": "/models"}]}],
                "volumes": [{"name": "models", "emptyDir": {}}],
            },
        },
    })
}

/// A value without empty objects, which are the same as missing fields.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name, without_empty(value)));
            fields
                .filter(|(_, value)| !value.is_null() && *value != json!({}))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        value => value,
    }
}

#[tokio::test]
async fn fields_of_pods_that_are_removed_again_have_the_operators_defaults() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start_with(&rig, &["--allow-in-pod-template", "service-account"]);
    pool.until_adopted().await;
    let current = async || {
        let (pods, hash) = template(&pool.deployment().await);
        (without_empty(pods), hash)
    };
    let before = current().await;
    assert_eq!(before.0["spec"]["serviceAccountName"], "default");
    pool.apply(&json!({"processor": fields_of_pods()})).await;
    eventually("changed pods", SOON, async || {
        current().await.0["spec"]["serviceAccountName"] == "another"
    })
    .await;
    pool.apply(&json!({})).await;
    eventually("pods as before", SOON, async || {
        let now = current().await;
        anyhow::ensure!(now == before, "{} and before {}", now.0, before.0);
        Ok(true)
    })
    .await;
    operator.end().await;
}

#[tokio::test]
async fn a_restarted_operator_writes_nothing_if_nothing_changed() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.apply(&json!({})).await;
    let first = OperatorProcess::start_briefly_leading(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    pool.until_status("final numbers", SOON, |status| {
        status
            .processor
            .as_ref()
            .is_some_and(|role| role.reason == "BacklogCovered")
    })
    .await;
    // Numbers are written at most five seconds after they change.
    let quiet = async |operator: &OperatorProcess| {
        let mut before = manifests::writes(&rig).len();
        loop {
            operator.until_read_again(6.0).await;
            let now = manifests::writes(&rig).len();
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), quiet(&first))
        .await
        .expect("a status");
    let baseline = manifests::writes(&rig);
    first.end().await;
    let second = OperatorProcess::start_briefly_leading(&rig);
    second.until_it_leads().await;
    second.until_read_again(6.0).await;
    assert_eq!(manifests::writes(&rig)[baseline.len()..], []);
    second.process.kill_9().await.expect("it runs");
    let third = OperatorProcess::start_briefly_leading(&rig);
    third.until_it_leads().await;
    third.until_read_again(6.0).await;
    assert_eq!(manifests::writes(&rig)[baseline.len()..], []);
    third.end().await;
    assert_eq!(manifests::writes(&rig)[baseline.len()..], []);
}

/// Has a member complete one task, and waits until the status has that many.
async fn complete_task(pool: &PoolUnderTest<'_>, member: &Member, tasks: i64) -> EstimatesStatus {
    let estimates = |status: &SeparationPoolStatus| status.processor.as_ref()?.estimates.clone();
    member.now(Tasks::Hold);
    pool.publish_one_each(1).await;
    pool.until_status("running task", SOON, |status| known_lag(status) == Some(1))
        .await;
    member.now(Tasks::Commit);
    let status = pool
        .until_status("completed task", SOON, |status| {
            estimates(status).is_some_and(|learned| learned.tasks == tasks)
        })
        .await;
    estimates(&status).expect("learned times")
}

#[tokio::test]
async fn learned_times_survive_a_restart_of_the_operator() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({"processor": {"scaling": {"minReplicas": 1}}}))
        .await;
    let first = OperatorProcess::start_briefly_leading(&rig);
    pool.until_adopted().await;
    let pods = ready_pods(&pool, 1).await;
    let member = Member::of(&pool, &pods[0], Tasks::Hold);
    let before = complete_task(&pool, &member, 1).await;
    assert_eq!(before.task_seconds, i64::try_from(TASK_TIME.as_secs()).ok());
    assert_eq!(before.starts, 1);
    assert!(before.startup_seconds > Some(0), "{before:?}");
    first.end().await;

    let second = OperatorProcess::start_briefly_leading(&rig);
    second.until_it_leads().await;
    let after = complete_task(&pool, &member, 2).await;
    assert!(after.updated_time.0 > before.updated_time.0, "{after:?}");
    let expected = EstimatesStatus {
        tasks: 2,
        updated_time: after.updated_time.clone(),
        ..before
    };
    assert_eq!(after, expected);
    second.end().await;
}

#[tokio::test]
async fn leader_and_standby_are_ready_after_listing_the_cluster() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    // Without permission to list pods it is live and not ready.
    let account = "without-permissions";
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                        "metadata": {"name": account, "namespace": rig.namespace}});
    manifests::apply(&rig.admin, &object).await;
    let token = rig
        .plane
        .token_for(&rig.namespace, account)
        .await
        .expect("a token");
    let blind = OperatorProcess::start_as(rig.plane, &token, &rig.namespace, &[]);
    let status = async |operator: &OperatorProcess, path: &str| -> anyhow::Result<u16> {
        Ok(operator.get(path).await?.0)
    };
    eventually("life", SOON, async || {
        anyhow::Ok(status(&blind, "/healthz").await? == 200)
    })
    .await;
    let (code, text) = blind.get("/readyz").await.expect("an answer");
    assert_eq!(code, 503, "{text}");
    eventually("reason in the log", SOON, async || {
        blind.log().contains("forbidden")
    })
    .await;
    assert_eq!(status(&blind, "/readyz").await.expect("an answer"), 503);
    assert_eq!(blind.process.exit_code(), None);
    drop(blind);

    let leader = OperatorProcess::start(&rig);
    leader.until_it_leads().await;
    let standby = OperatorProcess::start(&rig);
    eventually("ready standby", SOON, async || {
        anyhow::Ok(status(&standby, "/readyz").await? == 200)
    })
    .await;
    assert_eq!(status(&leader, "/readyz").await.expect("an answer"), 200);
    let leads = async |operator: &OperatorProcess| operator.metric("separation_operator_leader").await;
    assert_eq!(leads(&leader).await.expect("metrics"), Some(1.0));
    assert_eq!(leads(&standby).await.expect("metrics"), Some(0.0));
    pool.until_adopted().await;
    let (_, text) = leader.get("/metrics").await.expect("metrics");
    let ours = format!(
        r#"separation_pool_replicas_desired{{namespace="{}",pool="vocals",role="processor"}} 0"#,
        rig.namespace
    );
    assert!(text.contains(&ours), "{text}");
}
