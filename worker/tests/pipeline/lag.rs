//! `separation-worker lag` on real brokers.

use std::process::{Command, Output};

use serde_json::Value;

use crate::rig::{Rig, STEP_TIMEOUT, WORKER};

async fn lag(rig: &Rig, more: &[&str]) -> Output {
    let mut command = Command::new(WORKER);
    command.arg("lag").args(more).envs(rig.site.environment());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn lag_shows_the_lag_and_owner_of_each_partition() {
    let rig = Rig::new(3).await;
    let processor = rig
        .processor()
        .env("KAFKA_CLIENT_ID", "pool-processor-1")
        .start()
        .unwrap();
    let tasks = rig.submit_many(4).await;
    processor
        .wait_for_logs("Offset committed successfully", tasks.len(), STEP_TIMEOUT)
        .await
        .unwrap();
    let output = lag(&rig, &["--json"]).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read["state"], "Stable");
    let rows = read["partitions"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(
        rows.iter()
            .all(|row| row["owner"]["client_id"] == "pool-processor-1"),
        "{rows:?}"
    );
    let total = |field: &str| rows.iter().filter_map(|row| row[field].as_i64()).sum::<i64>();
    assert_eq!((total("end"), total("committed"), total("lag")), (4, 4, 0));

    let results = lag(&rig, &["--role", "uploader"]).await;
    let text = String::from_utf8(results.stdout).unwrap();
    assert!(
        text.starts_with("GROUP") && text.contains("LOG-END-OFFSET"),
        "{text}"
    );
}

#[tokio::test]
async fn lag_of_a_missing_topic_is_an_error() {
    let rig = Rig::new(1).await;
    let output = lag(&rig, &["--topic", "no_such_topic"]).await;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("no_such_topic"), "{errors}");
}
