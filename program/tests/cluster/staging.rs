//! A change of the staging storage waits until no message is queued: queued tasks name the previous place.

use serde_json::json;

use crate::adoption::condition_message;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// The staging address in the environment of the processors.
async fn staging(pool: &PoolUnderTest<'_>) -> String {
    let deployment = serde_json::to_value(pool.deployment().await).expect("JSON");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mut variables = container["env"].as_array().expect("variables").iter();
    let found = variables.find(|variable| variable["name"] == "S3_STAGING");
    found.expect("it is set")["value"]
        .as_str()
        .expect("a text")
        .to_owned()
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
    separation_testbed::eventually("the new staging storage", SOON, async || {
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
