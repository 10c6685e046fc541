//! Two pools that take from one group.

use kube::api::DeleteParams;
use separation_operator::crd::SeparationPoolStatus;
use serde_json::json;

use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

fn conflict(status: &SeparationPoolStatus) -> Option<&str> {
    let found = status.conditions.iter().find(|found| found.type_ == "Conflict")?;
    (found.status == "True").then_some(&*found.message)
}

#[tokio::test]
async fn the_newer_of_two_pools_with_one_group_is_held_until_the_older_one_is_gone() {
    let rig = Rig::new().await;
    // Neither its name nor its age in whole seconds makes it the first one.
    let older = PoolUnderTest::named(&rig, "z-older", 3).await;
    older.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    older.until_adopted().await;
    let newer = PoolUnderTest::named(&rig, "newer", 1).await;
    let same = json!({"processor": {"topic": older.tasks(), "group": older.group()}});
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
    // Its other role has a group of its own, and works.
    newer
        .until_status("adopted uploader", SOON, |status| {
            let uploader = status.uploader.as_ref();
            uploader.is_some_and(|role| role.adoption.is_some())
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
        .until_status("peace", SOON, |status| conflict(status).is_none())
        .await;
    operator.end().await;
}
