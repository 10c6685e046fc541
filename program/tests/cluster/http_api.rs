//! The HTTP API of a pool: its objects appear, follow the spec, and go with it; its problems are reported.

use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use separation_testbed::eventually;
use serde_json::{Value, json};

use crate::adoption::condition_message;
use crate::rig::{Rig, SOON};
use crate::secrets::secrets_hash;
use crate::subject::{OperatorProcess, PoolUnderTest};

const NAME: &str = "vocals-api";

/// The log message of each write of the objects.
const APPLYING: &str = "Applying the API";

/// A spec with an API of so many pods.
fn with_pods(replicas: i32) -> Value {
    json!({"api": {"basicAuthSecretRef": {"name": "api"}, "replicas": replicas}})
}

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

/// A pool whose API has two replicas, and the operator that created them.
async fn with_running_api(rig: &Rig) -> (PoolUnderTest<'_>, OperatorProcess) {
    let pool = PoolUnderTest::new(rig, 1).await;
    pool.apply(&with_pods(2)).await;
    let operator = OperatorProcess::start(rig);
    until_replicas(&pool, Some(2)).await;
    (pool, operator)
}

fn services(rig: &Rig) -> Api<Service> {
    Api::namespaced(rig.admin.clone(), &rig.namespace)
}

fn accounts(rig: &Rig) -> Api<ServiceAccount> {
    Api::namespaced(rig.admin.clone(), &rig.namespace)
}

#[tokio::test]
async fn the_api_appears_follows_the_spec_and_goes() {
    let rig = Rig::new().await;
    let (pool, operator) = with_running_api(&rig).await;
    let (services, accounts) = (services(&rig), accounts(&rig));
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
    let before = (version().await, operator.log().matches(APPLYING).count());
    assert_eq!(before.1, 1, "{}", operator.log());
    operator.until_read_again(5.0).await;
    let after = (version().await, operator.log().matches(APPLYING).count());
    assert_eq!(before, after);

    // Changes of the spec, and edits by others.
    pool.apply(&with_pods(3)).await;
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
    operator.until_read_again(2.0).await;
    assert!(!operator.log().contains(APPLYING), "{}", operator.log());

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
    let services = services(&rig);
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

#[tokio::test]
async fn a_deleted_service_and_service_account_are_recreated() {
    let rig = Rig::new().await;
    let (pool, operator) = with_running_api(&rig).await;
    let (services, accounts) = (services(&rig), accounts(&rig));
    let delete = DeleteParams::default();
    services.delete(NAME, &delete).await.expect("a Service");
    accounts.delete(NAME, &delete).await.expect("a service account");
    eventually("the Service and the service account", SOON, async || {
        let service = services.get_opt(NAME).await?;
        let account = accounts.get_opt(NAME).await?;
        anyhow::Ok(service.is_some() && account.is_some())
    })
    .await;

    // Without the Deployment, the others are still deleted with the API.
    operator.end().await;
    pool.deployments()
        .delete(NAME, &delete)
        .await
        .expect("a Deployment");
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    eventually("no Service and no service account", SOON, async || {
        let service = services.get_opt(NAME).await?;
        let account = accounts.get_opt(NAME).await?;
        anyhow::Ok(service.is_none() && account.is_none())
    })
    .await;
    operator.end().await;
}

/// Uids of the owners of an object.
fn owners(metadata: ObjectMeta) -> Vec<String> {
    let owners = metadata.owner_references.unwrap_or_default();
    owners.into_iter().map(|owner| owner.uid).collect()
}

#[tokio::test]
async fn an_orphaned_api_is_taken_over_by_the_recreated_pool() {
    let rig = Rig::new().await;
    let (pool, operator) = with_running_api(&rig).await;
    let services = services(&rig);
    let before = services.get(NAME).await.expect("a Service").metadata;
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    pool.pools().delete(&pool.name, &orphan).await.expect("a pool");
    eventually("end of the pool", SOON, async || {
        anyhow::Ok(pool.pools().get_opt(&pool.name).await?.is_none())
    })
    .await;
    let orphaned = services.get(NAME).await.expect("it still exists").metadata;
    assert_eq!(
        (&orphaned.uid, owners(orphaned.clone())),
        (&before.uid, Vec::new())
    );

    let pool_uid = pool.apply(&with_pods(2)).await.metadata.uid.expect("a uid");
    eventually("objects of the recreated pool", SOON, async || {
        let service = services.get(NAME).await?.metadata;
        let deployment = pool.deployments().get(NAME).await?.metadata;
        anyhow::ensure!(service.uid == before.uid, "the Service was replaced");
        let found = [owners(service), owners(deployment)];
        anyhow::ensure!(
            found.iter().all(|owners| *owners == [pool_uid.clone()]),
            "{found:?}"
        );
        Ok(true)
    })
    .await;
    operator.end().await;
}

#[tokio::test]
async fn a_missing_secret_of_the_api_is_reported_with_its_fix() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&with_pods(2)).await;
    let operator = OperatorProcess::start(&rig);
    let missing = format!(
        "api: SecretMissing: Secret {0}/api does not exist or lacks username, password, so the API's pods cannot \
         start; fix: kubectl create secret generic api --namespace {0} --from-literal=username=VALUE \
         --from-literal=password=VALUE",
        rig.namespace
    );
    let status = pool
        .until_status("missing Secret", SOON, |status| {
            condition_message(status, "Degraded", "True").is_some_and(|message| message == missing)
                && condition_message(status, "Ready", "True").is_some()
        })
        .await;
    let rollout = condition_message(&status, "Reconciling", "True");
    assert!(
        rollout.is_some_and(|message| message.starts_with("api: ") && message.ends_with("0 of 2 pods are ready")),
        "{rollout:?}"
    );
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let secret =
        json!({"metadata": {"name": "api"}, "stringData": {"username": "admin", "password": "secret"}});
    let secret = serde_json::from_value(secret).expect("a Secret");
    let created = secrets.create(&PostParams::default(), &secret).await;
    created.expect("it is created");
    pool.until_status("no problem", SOON, |status| {
        condition_message(status, "Degraded", "False").is_some()
    })
    .await;
    operator.end().await;
}

#[tokio::test]
async fn a_new_api_key_replaces_the_pods_of_the_api() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({"api": {"keysSecretRef": {"name": "api-keys"}}}))
        .await;
    let operator = OperatorProcess::start_with(&rig, &["--secret-refresh-seconds", "1"]);
    pool.until_status("missing Secret", SOON, |status| {
        condition_message(status, "Degraded", "True").is_some_and(|message| {
            message.starts_with("api: SecretMissing: ") && message.ends_with("--from-file=keys.json=FILE")
        })
    })
    .await;
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    // Writes the keys, and returns the hash of the pods once it differs.
    let changed_hash = async |keys: &str, before: Option<String>| {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "api-keys"},
            "stringData": {"keys.json": keys},
        });
        let params = PatchParams::apply("a-person").force();
        let written = secrets.patch("api-keys", &params, &Patch::Apply(secret)).await;
        written.expect("a secret");
        eventually("pods with the new keys", SOON, async || {
            let deployment = pool.deployments().get(NAME).await?;
            let now = secrets_hash(&deployment);
            anyhow::Ok((now.is_some() && now != before).then_some(now))
        })
        .await
    };
    let first = changed_hash("[]", None).await;
    pool.until_status("no problem", SOON, |status| {
        condition_message(status, "Degraded", "False").is_some()
    })
    .await;
    changed_hash(r#"[{"name": "acme", "sha256": "..."}]"#, first).await;
    operator.end().await;
}
