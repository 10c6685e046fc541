//! The rights that `deploy/operator` gives are all used, and each is needed.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use separation_testbed::eventually;
use serde_json::json;

use crate::manifests::{system, user};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Every resource and verb that a role gives.
fn given(role: &Role) -> BTreeSet<String> {
    let mut given = BTreeSet::new();
    for rule in role.rules.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            given.extend(rule.verbs.iter().map(|verb| format!("{resource} {verb}")));
        }
    }
    given
}

async fn role(rig: &Rig, namespace: &str, name: &str) -> Role {
    let roles: Api<Role> = Api::namespaced(rig.admin.clone(), namespace);
    roles.get(name).await.expect("a role")
}

#[tokio::test]
async fn every_right_is_used_and_nothing_is_refused() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    // Out, and in again: events, replicas, marks.
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    pool.kafka
        .commit(&pool.group(), &pool.tasks(), &[1, 1, 0])
        .await
        .expect("committed");
    pool.until_replicas(1, SOON).await;
    // A login that is not there.
    let login = json!({"kafka": {"sasl": {"mechanism": "SCRAM-SHA-512", "secretRef": {"name": "absent"}}}});
    let another = PoolUnderTest::named(&rig, "another", 1).await;
    another.apply(&login).await;
    another
        .until_status("missing secret", SOON, |status| {
            let known = status.conditions.iter().find(|found| found.type_ == "LagKnown");
            known.is_some_and(|known| known.message.contains("absent"))
        })
        .await;
    operator.end().await;

    let ours = user(&rig.namespace);
    let requests = rig.plane.requests().expect("an audit log");
    let asked: Vec<_> = requests.iter().filter(|asked| asked.user == ours).collect();
    let refused: Vec<_> = asked.iter().filter(|asked| asked.status == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let mut used: BTreeSet<String> = asked
        .iter()
        .map(|asked| {
            let slash = if asked.subresource.is_empty() { "" } else { "/" };
            format!("{}{slash}{} {}", asked.resource, asked.subresource, asked.verb)
        })
        .collect();
    // An apply that makes something is a patch in the log, and needs both rights: see the next test.
    assert!(used.contains("deployments patch"));
    used.insert("deployments create".to_owned());
    let mut all = given(&role(&rig, &rig.namespace, "separation-operator").await);
    all.extend(given(
        &role(&rig, &system(&rig.namespace), "separation-operator-lease").await,
    ));
    assert_eq!(used, all);
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_what_waited_for_it_is_done_once_it_is_given() {
    let rig = Rig::new().await;
    let roles: Api<Role> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let whole = role(&rig, &rig.namespace, "separation-operator").await;
    let mut rules = serde_json::to_value(&whole.rules).expect("JSON");
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
    // The right must be gone for the authorizer too, which looks at a copy.
    let operator = eventually("operator without the right", SOON, async || {
        pool.apply(&json!({})).await;
        let operator = OperatorProcess::start(&rig);
        operator.until_it_leads().await;
        pool.until_status("Degraded or adopted", SOON, |status| {
            !status.conditions.is_empty()
        })
        .await;
        let there = pool.replicas().await.is_some();
        if there {
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
    put(serde_json::to_value(&whole.rules).expect("JSON")).await;
    // Half a minute at most, unless somebody says something new.
    pool.apply(&json!({"processor": {"scaling": {"maxReplicas": 1}}}))
        .await;
    pool.deployment().await;
    operator.end().await;
}
