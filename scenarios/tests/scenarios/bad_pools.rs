//! Pools that cannot work say what to do, and disturb no other.

use std::collections::BTreeSet;

use anyhow::ensure;
use separation_scenarios::{Outcome, PATIENCE, Pool, PoolOptions, System};
use separation_testbed::{ClusterOptions, eventually};
use serde_json::{Value, json};

use crate::is_left_out;

/// What is wrong with a pool, in its specification, and what its status has to say of it: a condition's name, its status and
/// words of its message.
struct Bad {
    namespace: &'static str,
    spec: Value,
    condition: [&'static str; 2],
    words: &'static str,
}

#[tokio::test]
async fn each_says_what_to_do_and_the_others_work() {
    if is_left_out() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let gpu = json!({"spec": {"containers": [{
        "name": "worker",
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }]}});
    let bad = [
        Bad {
            namespace: "wrong-image",
            spec: json!({"image": "localhost/no-such-image:1"}),
            condition: ["Degraded", "True"],
            words: "no-such-image",
        },
        Bad {
            namespace: "missing-secret",
            spec: json!({"storage": {"s3": {"secretRef": {"name": "not-there"}}}}),
            condition: ["Degraded", "True"],
            words: "not-there",
        },
        Bad {
            namespace: "no-gpu",
            spec: json!({"processor": {"podOverrides": gpu}}),
            condition: ["Degraded", "True"],
            words: "nvidia.com/gpu",
        },
        Bad {
            namespace: "no-kafka",
            // A port of the host where nobody listens.
            spec: json!({"kafka": {"bootstrapServers": format!("{}:1", system.cluster.node.host_address())}}),
            condition: ["LagKnown", "False"],
            words: ":1",
        },
    ];
    let mut pools = Vec::new();
    for bad in &bad {
        let options = PoolOptions {
            change: bad.spec.clone(),
            ..PoolOptions::default()
        };
        let pool = Pool::apply(&system, bad.namespace, options).await.unwrap();
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
    good.all_told(&tasks).await;
    good.no_pods(&pods).await;
    let outcome = Outcome::read(&good, &tasks, &pods).await.unwrap();
    assert_eq!(outcome, Outcome::default());

    for (bad, pool) in bad.iter().zip(&pools) {
        let [name, expected] = bad.condition;
        eventually(bad.namespace, PATIENCE, async || {
            let status = pool.status().await?;
            let found = status["conditions"].as_array().into_iter().flatten();
            let found = found.into_iter().find(|condition| condition["type"] == name);
            let is_said = found.is_some_and(|condition| {
                condition["status"] == expected
                    && condition["message"]
                        .as_str()
                        .is_some_and(|message| message.contains(bad.words))
            });
            ensure!(is_said, "{status:#}");
            anyhow::Ok(true)
        })
        .await;
    }
}
