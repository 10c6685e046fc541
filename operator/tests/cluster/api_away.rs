//! The operator while the API server or its database is away, and while an object cannot be read.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use separation_testbed::{Server, eventually};
use serde_json::{Value, json};

use crate::own_plane::OwnPlane;
use crate::rig::{DEFINITION, SOON, apply, get, install, merge_patch, post};
use crate::subject::{OperatorProcess, PoolUnderTest, SHORT_LEASE};

/// That work which came while `away` was going on is answered when it is over, by the same process.
async fn check(own: &OwnPlane, away: impl AsyncFn(&OperatorProcess)) {
    let pool = PoolUnderTest::new(&own.rig, 6).await;
    pool.apply(&json!({})).await;
    let operator = own.operator(&SHORT_LEASE);
    pool.until_adopted().await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    pool.publish_one_each(6).await;
    away(&operator).await;
    pool.until_replicas(6, SOON).await;
    let adoption = pool
        .until_adopted()
        .await
        .processor
        .and_then(|role| role.adoption);
    assert!(adoption.is_some());
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
async fn an_operator_goes_on_after_the_api_server_was_killed() {
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
async fn an_operator_goes_on_after_the_api_server_was_frozen() {
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
async fn an_operator_goes_on_after_the_database_was_killed() {
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
async fn a_pool_that_cannot_be_read_says_so_and_stops_nobody() {
    let own = OwnPlane::take().await;
    let rig = &own.rig;
    // Under a laxer definition, as an earlier one may have been, somebody stored what this version does not understand.
    let strict: Value = serde_saphyr::from_str(DEFINITION).expect("YAML");
    let mut lax = strict.clone();
    let spec = &mut lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    *spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    install(&rig.admin, &lax).await;
    let unreadable = PoolUnderTest::named(rig, "unreadable", 1).await;
    let mute = PoolUnderTest::named(rig, "mute", 1).await;
    let pool = PoolUnderTest::new(rig, 3).await;
    // The API server takes no status for the second one: rules of its definition cannot be evaluated.
    for (pool, spec) in [
        (&unreadable, json!({"provider": "abacus"})),
        (
            &mute,
            json!({"processor": {"topic": 5, "scaling": "as you like"}}),
        ),
    ] {
        eventually("laxer definition", SOON, async || {
            let stored = post(rig.pools(), &pool.object(&spec));
            stored.try_send(&rig.admin).await.map_err(anyhow::Error::from)?;
            anyhow::Ok(true)
        })
        .await;
    }
    install(&rig.admin, &strict).await;
    let operator = own.operator(&SHORT_LEASE);
    eventually("stricter definition", SOON, async || {
        let applied = apply(
            format!("{}/vocals?fieldManager=a-person&force=true", rig.pools()),
            &pool.object(&json!({})),
        );
        let stored = applied.try_send(&rig.admin).await.map_err(anyhow::Error::from)?;
        // Its defaults are there: the definition is in force again.
        anyhow::Ok(stored["spec"]["uploader"]["scaling"]["maxReplicas"].is_number())
    })
    .await;
    pool.until_adopted().await;
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    let path = format!("{}/unreadable", rig.pools());
    let ready = eventually("word about it", SOON, async || {
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
    eventually("event about the mute one", SOON, async || {
        let found = events.list(&ListParams::default()).await?;
        anyhow::Ok(found.iter().any(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            about == Some("mute") && event.reason.as_deref() == Some("InvalidSpec")
        }))
    })
    .await;
    // Corrected, it works like any other.
    let corrected = json!({"spec": unreadable.object(&json!({"provider": "cpu"}))["spec"]});
    merge_patch(&path, &corrected).accepted(&rig.admin).await;
    unreadable.until_adopted().await;
    operator.end().await;
}
