//! A change of the staging storage waits until no message is queued and the API has ended: queued tasks name the
//! previous location.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use separation_testbed::eventually;
use serde_json::{Value, json};

use crate::adoption::condition_message;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// The Deployment of the API.
const API: &str = "vocals-api";

/// The replicas of a Deployment, and the staging address in the environment of its pods.
async fn deployed(pool: &PoolUnderTest<'_>, name: &str) -> anyhow::Result<(i32, String)> {
    let deployment = serde_json::to_value(pool.deployments().get(name).await?)?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mut variables = container["env"].as_array().into_iter().flatten();
    let address = variables.find(|variable| variable["name"] == "S3_STAGING");
    let address = address.and_then(|variable| variable["value"].as_str());
    let replicas = deployment["spec"]["replicas"].as_i64();
    let replicas = i32::try_from(replicas.unwrap_or_default())?;
    Ok((replicas, address.unwrap_or_default().to_owned()))
}

/// The staging address in the environment of the processors.
async fn staging(pool: &PoolUnderTest<'_>) -> String {
    pool.deployment().await;
    let found = deployed(pool, &pool.deployment_name()).await;
    found.expect("a Deployment").1
}

async fn until_api(pool: &PoolUnderTest<'_>, replicas: i32, address: &str) {
    eventually("replicas and staging storage of the API", SOON, async || {
        let found = deployed(pool, API).await?;
        anyhow::ensure!(found == (replicas, address.to_owned()), "{found:?}");
        Ok(true)
    })
    .await;
}

async fn until_reconciling(pool: &PoolUnderTest<'_>, text: &str) {
    pool.until_status(text, SOON, |status| {
        let message = condition_message(status, "Reconciling", "True");
        message.is_some_and(|message| message.contains(text))
    })
    .await;
}

#[tokio::test]
async fn a_change_of_staging_waits_for_an_empty_queue_and_says_so() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;

    pool.apply(&json!({"storage": {"staging": {"s3": {"bucket": "other"}}}}))
        .await;
    let status = pool
        .until_status("a waiting change", SOON, |status| {
            let message = condition_message(status, "Reconciling", "True");
            message.is_some_and(|message| message.contains("when the lag of both topics is 0"))
        })
        .await;
    assert!(
        condition_message(&status, "Ready", "True").is_some(),
        "{status:?}"
    );
    operator.until_read_again(3.0).await;
    assert_eq!(staging(&pool).await, "s3://stems/staging/");
    // Another operator continues to wait.
    operator.end().await;
    let operator = OperatorProcess::start(&rig);
    operator.until_it_leads().await;
    operator.until_read_again(3.0).await;
    assert_eq!(staging(&pool).await, "s3://stems/staging/");

    let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[1, 1]).await;
    committed.expect("committed");
    eventually("the new staging storage", SOON, async || {
        anyhow::Ok(staging(&pool).await == "s3://other/staging/")
    })
    .await;
    pool.until_status("a change that is done", SOON, |status| {
        let message = condition_message(status, "Reconciling", "True");
        !message.is_some_and(|message| message.contains("storage.staging"))
    })
    .await;
    operator.end().await;
}

/// The pods of the API, once there are two.
async fn api_pods(pool: &PoolUnderTest<'_>) -> Vec<Pod> {
    let selector = ListParams::default().labels("separation.dev/pool=vocals,separation.dev/role=api");
    eventually("pods of the API", SOON, async || {
        let pods = pool.pods().list(&selector).await?.items;
        anyhow::Ok((pods.len() == 2).then_some(pods))
    })
    .await
}

/// Sets the finalizers of a pod; with one, it exists after its deletion.
async fn set_finalizers(pool: &PoolUnderTest<'_>, pod: &Pod, finalizers: &Value) {
    let name = pod.metadata.name.as_deref().expect("a name");
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let patched = pool.pods().patch(name, &PatchParams::default(), &patch).await;
    patched.expect("the pod exists");
}

#[tokio::test]
async fn the_api_ends_before_the_workers_change_their_staging_and_starts_after_them() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    let (old, new) = ("s3://stems/staging/", "s3://other/staging/");
    let with_bucket = |bucket: &str| {
        json!({
            "api": {"basicAuthSecretRef": {"name": "api"}},
            "storage": {"staging": {"s3": {"bucket": bucket}}},
        })
    };
    pool.apply(&with_bucket("stems")).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    until_api(&pool, 2, old).await;
    let slow = api_pods(&pool).await.swap_remove(0);
    set_finalizers(&pool, &slow, &json!(["separation.dev/test"])).await;
    pool.publish_one_each(1).await;
    pool.until_replicas(1, SOON).await;

    pool.apply(&with_bucket("other")).await;
    until_reconciling(&pool, "when the lag of both topics is 0").await;
    operator.until_read_again(3.0).await;
    let running = deployed(&pool, API).await.expect("a Deployment");
    assert_eq!(running, (2, old.to_owned()), "tasks are queued");

    let commit = async |offset: i64| {
        let committed = pool.kafka.commit(&pool.group(), &pool.tasks(), &[offset]).await;
        committed.expect("committed");
    };
    commit(1).await;
    until_api(&pool, 0, old).await;
    until_reconciling(&pool, "api: stopped while storage.staging changes").await;
    operator.until_read_again(3.0).await;
    assert_eq!(staging(&pool).await, old, "a pod of the API can publish a task");

    // Its last task. Another operator does not start the API again.
    pool.publish_one_each(1).await;
    set_finalizers(&pool, &slow, &Value::Null).await;
    operator.end().await;
    let operator = OperatorProcess::start(&rig);
    operator.until_it_leads().await;
    operator.until_read_again(3.0).await;
    assert_eq!(staging(&pool).await, old, "a task is queued");
    until_api(&pool, 0, old).await;

    commit(2).await;
    until_api(&pool, 2, new).await;
    assert_eq!(staging(&pool).await, new);
    operator.end().await;
}
