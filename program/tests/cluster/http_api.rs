//! The HTTP API of a pool: its objects appear, follow the spec, and go with it.

use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use separation_testbed::eventually;
use serde_json::json;

use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

const NAME: &str = "vocals-api";

/// Waits until the API's Deployment has this number of replicas; `None` until it is gone.
async fn until_replicas(pool: &PoolUnderTest<'_>, expected: Option<i32>) {
    eventually("replicas of the API", SOON, async || {
        let found = pool.deployments().get_opt(NAME).await?;
        let replicas = found.and_then(|found| found.spec.replicas);
        anyhow::ensure!(replicas == expected, "{replicas:?}");
        Ok(true)
    })
    .await;
}

#[tokio::test]
async fn the_api_appears_follows_the_spec_and_goes() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    let with = |replicas: i32| json!({"api": {"basicAuthSecretRef": {"name": "api"}, "replicas": replicas}});
    pool.apply(&with(2)).await;
    let operator = OperatorProcess::start(&rig);
    until_replicas(&pool, Some(2)).await;
    let services: Api<Service> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let service = services.get(NAME).await.expect("a Service");
    assert_eq!(service.spec.expect("a spec").ports.expect("ports")[0].port, 80);
    let account = accounts.get(NAME).await.expect("a service account");
    assert_eq!(account.automount_service_account_token, Some(false));
    pool.until_status("status of the API", SOON, |status| {
        status
            .api
            .as_ref()
            .is_some_and(|api| (api.desired, &*api.service) == (2, NAME))
    })
    .await;

    // Without a change, nothing is written again.
    operator.until_read_again(2.0).await;
    let version = async || {
        let found = pool.deployments().get(NAME).await.expect("the Deployment");
        found.metadata.resource_version
    };
    let before = (
        version().await,
        operator.log().matches("Applying the API").count(),
    );
    assert_eq!(before.1, 1, "{}", operator.log());
    operator.until_read_again(5.0).await;
    let after = (
        version().await,
        operator.log().matches("Applying the API").count(),
    );
    assert_eq!(before, after);

    // Changes of the spec, and edits by others.
    pool.apply(&with(3)).await;
    until_replicas(&pool, Some(3)).await;
    let edit = Patch::Merge(json!({"spec": {"replicas": 7}}));
    let edited = pool
        .deployments()
        .patch(NAME, &PatchParams::default(), &edit)
        .await;
    edited.expect("an edit");
    until_replicas(&pool, Some(3)).await;
    operator.end().await;
    let operator = OperatorProcess::start(&rig);
    operator.until_it_leads().await;

    pool.apply(&json!({})).await;
    until_replicas(&pool, None).await;
    eventually("no Service and no service account", SOON, async || {
        let service = services.get_opt(NAME).await?;
        let account = accounts.get_opt(NAME).await?;
        anyhow::Ok(service.is_none() && account.is_none())
    })
    .await;
    pool.until_status("no API", SOON, |status| status.api.is_none())
        .await;
    operator.end().await;
}

#[tokio::test]
async fn objects_of_others_are_neither_changed_nor_deleted() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    let services: Api<Service> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let service = json!({"metadata": {"name": NAME}, "spec": {"ports": [{"port": 1234}]}});
    let service = serde_json::from_value(service).expect("a Service");
    let created = services.create(&PostParams::default(), &service).await;
    created.expect("it is created");
    pool.apply(&json!({"api": {"basicAuthSecretRef": {"name": "api"}}}))
        .await;
    let operator = OperatorProcess::start(&rig);
    pool.until_status("a name that is taken", SOON, |status| {
        let problem = status.api.as_ref().map(|api| &*api.problem);
        problem
            .is_some_and(|problem| problem.contains("does not belong to this pool; fix: delete or rename it"))
    })
    .await;
    pool.apply(&json!({})).await;
    operator.until_read_again(3.0).await;
    let service = services.get(NAME).await.expect("it still exists");
    assert_eq!(service.spec.expect("a spec").ports.expect("ports")[0].port, 1234);
    assert!(
        pool.deployments()
            .get_opt(NAME)
            .await
            .expect("an answer")
            .is_none()
    );
    operator.end().await;
}
