//! The operator while the API server or its database is unreachable, and while an object cannot be decoded.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use separation_testbed::{Server, eventually};
use serde_json::{Value, json};

use crate::own_plane::OwnPlane;
use crate::rig::{CRD, SOON, apply, get, install, merge_patch, post};
use crate::subject::{OperatorProcess, PoolUnderTest, SHORT_LEASE};

/// Messages that arrive during `outage` are scaled for afterwards, by the same process.
async fn check(own: &OwnPlane, outage: impl AsyncFn(&OperatorProcess)) {
    let pool = PoolUnderTest::new(&own.rig, 6).await;
    pool.apply(&json!({})).await;
    let operator = own.operator(&SHORT_LEASE);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    pool.publish_one_each(6).await;
    outage(&operator).await;
    pool.until_replicas(6, SOON).await;
    pool.until_adopted().await;
    assert_eq!(operator.process.exit_code(), None);
    assert_eq!(operator.get("/healthz").await.expect("an answer").0, 200);
    pool.pools()
        .delete(&pool.name, &Default::default())
        .await
        .expect("a pool");
    operator.end().await;
}

/// Waits until the operator has noticed that it cannot renew its lease.
async fn until_it_leads_no_more(operator: &OperatorProcess) {
    eventually("end of leading", SOON, async || !operator.leads()).await;
    assert_eq!(operator.get("/readyz").await.expect("an answer").0, 200);
}

#[tokio::test]
async fn an_operator_continues_after_the_api_server_was_killed() {
    let own = OwnPlane::take().await;
    let plane = own.rig.plane;
    check(&own, async |operator| {
        plane.kill(Server::Api).await.expect("it runs");
        until_it_leads_no_more(operator).await;
        plane.start_again(Server::Api).await.expect("it starts");
    })
    .await;
}

#[tokio::test]
async fn an_operator_continues_after_the_api_server_was_frozen() {
    let own = OwnPlane::take().await;
    let plane = own.rig.plane;
    check(&own, async |operator| {
        plane.pause(Server::Api).expect("it runs");
        until_it_leads_no_more(operator).await;
        plane.resume(Server::Api).expect("it is there");
    })
    .await;
}

#[tokio::test]
async fn an_operator_continues_after_the_database_was_killed() {
    let own = OwnPlane::take().await;
    let plane = own.rig.plane;
    check(&own, async |operator| {
        plane.kill(Server::Etcd).await.expect("it runs");
        until_it_leads_no_more(operator).await;
        plane.start_again(Server::Etcd).await.expect("it starts");
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_pool_is_reported_and_other_pools_continue() {
    let own = OwnPlane::take().await;
    let rig = &own.rig;
    // Under a less strict CRD, as an earlier one may have been, a user stored a pool that this version cannot decode.
    let strict: Value = serde_saphyr::from_str(CRD).expect("YAML");
    let mut lax = strict.clone();
    let spec = &mut lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    *spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    install(&rig.admin, &lax).await;
    let unreadable = PoolUnderTest::named(rig, "unreadable", 1).await;
    let without_status = PoolUnderTest::named(rig, "without-status", 1).await;
    let pool = PoolUnderTest::new(rig, 3).await;
    // The API server accepts no status for the second pool: the CRD's rules cannot be evaluated on it.
    for (pool, spec) in [
        (&unreadable, json!({"processor": {"executionProvider": "Abacus"}})),
        (
            &without_status,
            json!({"processor": {"topic": 5, "scaling": "as you like"}}),
        ),
    ] {
        eventually("less strict CRD", SOON, async || {
            let stored = post(rig.pools(), &pool.object(&spec));
            stored.try_send(&rig.admin).await.map_err(anyhow::Error::from)?;
            anyhow::Ok(true)
        })
        .await;
    }
    install(&rig.admin, &strict).await;
    let operator = own.operator(&SHORT_LEASE);
    eventually("stricter CRD", SOON, async || {
        let applied = apply(
            format!("{}/vocals?fieldManager=a-person&force=true", rig.pools()),
            &pool.object(&json!({})),
        );
        let stored = applied.try_send(&rig.admin).await.map_err(anyhow::Error::from)?;
        // Its defaults are set: the CRD is in force again.
        anyhow::Ok(stored["spec"]["uploader"]["scaling"]["maxReplicas"].is_number())
    })
    .await;
    pool.until_adopted().await;
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    let path = format!("{}/unreadable", rig.pools());
    let ready = eventually("condition Ready", SOON, async || {
        let object = get(&path).accepted(&rig.admin).await;
        let conditions = object["status"]["conditions"].as_array().cloned();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|found| found["type"] == "Ready");
        ready
            .ok_or_else(|| anyhow::anyhow!("{}", operator.log()))
            .map(Some)
    })
    .await;
    assert_eq!(ready["reason"], "InvalidSpec", "{ready}");
    let message = ready["message"].as_str().expect("a message");
    assert!(
        message.contains("cannot be read") && message.contains("fix:"),
        "{message}"
    );
    let events: Api<Event> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    eventually("event about the pool without a status", SOON, async || {
        let found = events.list(&ListParams::default()).await?;
        anyhow::Ok(found.iter().any(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            about == Some("without-status") && event.reason.as_deref() == Some("InvalidSpec")
        }))
    })
    .await;
    // Corrected, it works like any other.
    let corrected =
        json!({"spec": unreadable.object(&json!({"processor": {"executionProvider": "CPU"}}))["spec"]});
    merge_patch(&path, &corrected).accepted(&rig.admin).await;
    unreadable.until_adopted().await;
    operator.end().await;
}
