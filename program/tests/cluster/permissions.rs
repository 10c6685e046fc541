//! The operator uses all permissions that `deploy/operator` grants, and needs each of them.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use separation_testbed::eventually;
use serde_json::json;

use crate::manifests::{system, user};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Every resource and verb that a role grants.
fn granted(role: &Role) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for rule in role.rules.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            granted.extend(rule.verbs.iter().map(|verb| format!("{resource} {verb}")));
        }
    }
    granted
}

async fn role(rig: &Rig, namespace: &str, name: &str) -> Role {
    let roles: Api<Role> = Api::namespaced(rig.admin.clone(), namespace);
    roles.get(name).await.expect("a role")
}

#[tokio::test]
async fn every_permission_is_used_and_nothing_is_refused() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    // Scale up and down: events, replicas, deletion costs.
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    pool.kafka
        .commit(&pool.group(), &pool.tasks(), &[1, 1, 0])
        .await
        .expect("committed");
    pool.until_replicas(1, SOON).await;
    // An API, and none again.
    let has_api = async |exists: bool| {
        eventually("the API's Deployment", SOON, async || {
            let found = pool.deployments().get_opt("vocals-api").await?;
            anyhow::Ok(found.is_some() == exists)
        })
        .await;
    };
    pool.apply(&json!({"api": {"basicAuthSecretRef": {"name": "absent"}}}))
        .await;
    has_api(true).await;
    pool.apply(&json!({})).await;
    has_api(false).await;
    // Credentials that do not exist.
    let secret = json!({"name": "absent"});
    let credentials = json!({"kafka": {"sasl": {"usernameSecretRef": secret, "passwordSecretRef": secret}}});
    let another = PoolUnderTest::named(&rig, "another", 1).await;
    another.apply(&credentials).await;
    another
        .until_status("missing secret", SOON, |status| {
            let known = status.conditions.iter().find(|found| found.type_ == "LagKnown");
            known.is_some_and(|known| known.message.contains("absent"))
        })
        .await;
    operator.end().await;

    let ours = user(&rig.namespace);
    let requests = rig.plane.requests().expect("an audit log");
    let requests: Vec<_> = requests.iter().filter(|request| request.user == ours).collect();
    let refused: Vec<_> = requests.iter().filter(|request| request.status == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let mut used: BTreeSet<String> = requests
        .iter()
        .map(|request| {
            let slash = if request.subresource.is_empty() { "" } else { "/" };
            format!(
                "{}{slash}{} {}",
                request.resource, request.subresource, request.verb
            )
        })
        .collect();
    // An apply that creates an object is a patch in the audit log, and needs both permissions: see the next test.
    for resource in ["deployments", "services", "serviceaccounts"] {
        assert!(used.contains(&format!("{resource} patch")));
        used.insert(format!("{resource} create"));
    }
    let mut all = granted(&role(&rig, &rig.namespace, "separation-operator").await);
    all.extend(granted(
        &role(&rig, &system(&rig.namespace), "separation-operator-lease").await,
    ));
    assert_eq!(used, all);
}

#[tokio::test]
async fn a_missing_permission_is_reported_and_pending_writes_follow_once_it_is_granted() {
    let rig = Rig::new().await;
    let roles: Api<Role> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let full_role = role(&rig, &rig.namespace, "separation-operator").await;
    let mut rules = serde_json::to_value(&full_role.rules).expect("JSON");
    for rule in rules.as_array_mut().expect("rules") {
        if rule["resources"] == json!(["deployments"]) {
            rule["verbs"] = json!(["get", "list", "watch", "patch"]);
        }
    }
    let put = async |rules: serde_json::Value| {
        let patch = Patch::Merge(json!({"rules": rules}));
        let params = PatchParams::default();
        roles
            .patch("separation-operator", &params, &patch)
            .await
            .expect("a role");
    };
    put(rules).await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    // The authorizer, which uses a cache, must have noticed that the permission is revoked.
    let operator = eventually("operator without the permission", SOON, async || {
        pool.apply(&json!({})).await;
        let operator = OperatorProcess::start(&rig);
        operator.until_it_leads().await;
        pool.until_status("Degraded or adopted", SOON, |status| {
            !status.conditions.is_empty()
        })
        .await;
        let exists = pool.replicas().await.is_some();
        if exists {
            operator.end().await;
            pool.pools()
                .delete(&pool.name, &DeleteParams::default())
                .await
                .expect("a pool");
            return None;
        }
        Some(operator)
    })
    .await;
    let status = pool
        .until_status("refusal", SOON, |status| {
            let degraded = status.conditions.iter().find(|found| found.type_ == "Degraded");
            degraded.is_some_and(|found| found.reason == "Forbidden")
        })
        .await;
    let degraded = status.conditions.iter().find(|found| found.type_ == "Degraded");
    let message = &degraded.expect("it is there").message;
    assert!(message.contains("cannot create resource"), "{message}");
    put(serde_json::to_value(&full_role.rules).expect("JSON")).await;
    // At most half a minute, unless an object changes.
    pool.apply(&json!({"processor": {"scaling": {"maxReplicas": 1}}}))
        .await;
    pool.deployment().await;
    operator.end().await;
}
