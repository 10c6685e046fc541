//! Two pools that use the same consumer group.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use separation_operator::crd::SeparationPoolStatus;
use serde_json::json;

use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

fn conflict(status: &SeparationPoolStatus) -> Option<&str> {
    let found = status
        .conditions
        .iter()
        .find(|found| found.type_ == "GroupConflict")?;
    (found.status == "True").then_some(&*found.message)
}

#[tokio::test]
async fn of_two_pools_with_one_group_the_newer_is_held_until_the_older_is_deleted() {
    let rig = Rig::new().await;
    // Neither its name nor its age in seconds makes it the first one.
    let older = PoolUnderTest::named(&rig, "z-older", 3).await;
    older.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    older.until_adopted().await;
    let newer = PoolUnderTest::named(&rig, "newer", 1).await;
    // The same brokers by another address.
    let servers = newer.kafka.bootstrap().replace("127.0.0.1", "localhost");
    let same = json!({
        "kafka": {"bootstrapServers": servers},
        "processor": {"topic": older.tasks(), "consumerGroup": older.group()},
    });
    newer.apply(&same).await;
    let held = newer
        .until_status("conflict", SOON, |status| conflict(status).is_some())
        .await;
    let message = conflict(&held).expect("it is there");
    assert!(
        message.contains("z-older") && message.contains("fix:"),
        "{message}"
    );
    assert_eq!(
        held.processor.as_ref().map(|role| &*role.reason),
        Some("Conflict")
    );
    let stalled = held.conditions.iter().find(|found| found.type_ == "Stalled");
    let stalled = stalled.map(|found| (&*found.status, &*found.reason));
    assert_eq!(stalled, Some(("True", "GroupShared")));
    older.publish_one_each(3).await;
    older.until_replicas(3, SOON).await;
    assert_eq!(newer.replicas().await, Some(0));
    let now = older
        .pools()
        .get(&older.name)
        .await
        .expect("the older one")
        .status;
    assert_eq!(conflict(&now.expect("a status")), None);
    // Its other role has its own group, and works.
    newer
        .until_status("adopted uploader", SOON, |status| {
            let uploader = status.uploader.as_ref();
            uploader.is_some_and(|role| role.offsets.is_some())
        })
        .await;
    newer
        .kafka
        .publish_to(&newer.results(), 0, "key", "{}")
        .await
        .expect("published");
    newer
        .until_status("uploader", SOON, |status| {
            status
                .uploader
                .as_ref()
                .is_some_and(|role| role.replicas.desired == 1)
        })
        .await;
    older
        .pools()
        .delete(&older.name, &DeleteParams::default())
        .await
        .expect("the older one");
    newer.until_replicas(3, SOON).await;
    newer
        .until_status("end of the conflict", SOON, |status| conflict(status).is_none())
        .await;
    operator.end().await;
}

#[tokio::test]
async fn an_older_pool_with_refused_credentials_does_not_block_others() {
    let rig = Rig::new().await;
    let victim = PoolUnderTest::named(&rig, "victim", 3).await;
    let older = PoolUnderTest::named(&rig, "a-older", 1).await;
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "guessed"},
        "stringData": {"username": "u", "password": "p"},
    });
    let params = PatchParams::apply("a-person").force();
    let written = secrets.patch("guessed", &params, &Patch::Apply(secret)).await;
    written.expect("a secret");
    // The brokers require no credentials on this port, and refuse these.
    older
        .apply(&json!({
            "kafka": {"sasl": {
                "usernameSecretRef": {"name": "guessed"},
                "passwordSecretRef": {"name": "guessed"},
            }},
            "processor": {"topic": victim.tasks(), "consumerGroup": victim.group()},
        }))
        .await;
    let _operator = OperatorProcess::start(&rig);
    older
        .until_status("unknown lag", SOON, |status| {
            let lag = status.processor.as_ref().and_then(|role| role.lag.as_ref());
            lag.is_some_and(|lag| lag.messages.is_none())
        })
        .await;
    victim.apply(&json!({})).await;
    victim.publish_one_each(3).await;
    victim.until_replicas(3, SOON).await;
    let status = victim.pools().get(&victim.name).await.expect("the victim").status;
    assert_eq!(conflict(&status.expect("a status")), None);
}
