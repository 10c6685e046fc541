//! Scale up for queued messages, and back down.

use std::time::Duration;

use serde_json::json;

use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

#[tokio::test]
async fn messages_become_replicas_in_one_write_with_a_reason_in_the_status() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 24).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    let deployment = pool.deployment().await;
    assert_eq!(deployment.spec.replicas, Some(0));
    pool.until_adopted().await;

    pool.publish_one_each(24).await;
    pool.until_replicas(24, SOON).await;
    let status = pool
        .until_status("reason", SOON, |status| {
            status
                .processor
                .as_ref()
                .is_some_and(|role| role.replicas.desired == 24)
        })
        .await;
    let processor = status.processor.expect("a processor");
    assert_eq!(processor.reason, "BacklogCovered");
    assert_eq!(
        processor.message,
        "24 messages on 24 of 24 partitions need 24 replicas: 24 replicas"
    );
    let writes = rig
        .plane
        .requests()
        .expect("an audit log")
        .into_iter()
        .filter(|request| {
            request.namespace == rig.namespace
                && request.resource == "deployments"
                && request.name == "vocals-processor"
                && request.uri.contains("fieldManager=separation-operator")
                && request.writes()
        });
    // One write created it, and one scaled it, however the messages arrived.
    let writes = writes.count();
    assert!((2..=4).contains(&writes), "{writes} writes");
    operator.process.sigterm().expect("it runs");
    assert_eq!(
        operator
            .process
            .wait_exit(Duration::from_secs(10))
            .await
            .expect("it ends"),
        0
    );
}
