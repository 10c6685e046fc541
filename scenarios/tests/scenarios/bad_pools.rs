//! Broken pools report how to fix them and do not affect other pools.

use std::collections::BTreeSet;

use anyhow::ensure;
use separation_scenarios::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System};
use separation_testbed::{ClusterOptions, eventually};
use serde_json::{Value, json};

use crate::is_skipped;

/// A defect in a pool's spec and the condition it must cause: type, status and text of its message.
struct InvalidPool {
    namespace: &'static str,
    spec: Value,
    condition: [&'static str; 2],
    text: &'static str,
}

#[tokio::test]
async fn each_reports_its_fix_and_other_pools_work() {
    if is_skipped() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let invalid = [
        InvalidPool {
            namespace: "wrong-image",
            spec: json!({"processor": {"image": "localhost/no-such-image:1"}}),
            condition: ["Degraded", "True"],
            text: "no-such-image",
        },
        InvalidPool {
            namespace: "missing-secret",
            spec: json!({"storage": {"s3": {"credentialsSecretRef": {"name": "not-there"}}}}),
            condition: ["Degraded", "True"],
            text: "not-there",
        },
        InvalidPool {
            namespace: "no-gpu",
            spec: json!({"processor": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}),
            condition: ["Degraded", "True"],
            text: "nvidia.com/gpu",
        },
        InvalidPool {
            namespace: "no-kafka",
            // A port of the host without a listener.
            spec: json!({"kafka": {"bootstrapServers": format!("{}:1", system.cluster.node.host_address())}}),
            condition: ["LagKnown", "False"],
            text: ":1",
        },
    ];
    let mut pools = Vec::new();
    for invalid in &invalid {
        let options = PoolOptions {
            change: invalid.spec.clone(),
            ..PoolOptions::default()
        };
        let pool = Pool::apply(&system, invalid.namespace, options).await.unwrap();
        pool.submit(1.0, 1).await.unwrap();
        pools.push(pool);
    }
    let good = Pool::create(&system, "good", PoolOptions::default())
        .await
        .unwrap();
    let pods = system.cluster.watch_pods(&good.namespace);
    let mut tasks = BTreeSet::new();
    for number in 0..4 {
        tasks.insert(good.submit(1.0, number).await.unwrap());
    }
    good.wait_for_all_webhooks(&tasks).await;
    good.wait_until_no_pods(&pods).await;
    let outcome = Outcome::read(&good, &tasks, &pods).await.unwrap();
    assert_eq!(outcome, Outcome::default());

    for (invalid, pool) in invalid.iter().zip(&pools) {
        let [name, expected] = invalid.condition;
        eventually(invalid.namespace, STEP_TIMEOUT, async || {
            let status = pool.status().await?;
            let found = status["conditions"].as_array().into_iter().flatten();
            let found = found.into_iter().find(|condition| condition["type"] == name);
            let is_reported = found.is_some_and(|condition| {
                condition["status"] == expected
                    && condition["message"]
                        .as_str()
                        .is_some_and(|message| message.contains(invalid.text))
            });
            ensure!(is_reported, "{status:#}");
            anyhow::Ok(true)
        })
        .await;
    }
}
