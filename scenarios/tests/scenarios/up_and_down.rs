//! Scale-up from zero to the replicas that the backlog needs, and back down; then the check of the pool from its pods.

use std::collections::BTreeSet;

use anyhow::ensure;
use separation_scenarios::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System, max_processors};
use separation_testbed::{ClusterOptions, eventually};
use serde_json::{Value, json};

use crate::is_skipped;

#[tokio::test]
async fn ten_tasks_scale_the_pool_up_and_it_scales_to_zero_when_all_are_done() {
    if is_skipped() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let output = system.release.test(&system.cluster).await.unwrap();
    assert!(output.contains("pools of all namespaces can be read"), "{output}");
    let pool = Pool::create(&system, "media", PoolOptions::default())
        .await
        .unwrap();
    let pods = system.cluster.watch_pods(&pool.namespace);
    assert!(system.cluster.pods(&pool.namespace).await.unwrap().is_empty());

    let mut tasks = BTreeSet::new();
    for number in 0..10_u8 {
        tasks.insert(
            pool.submit(f32::from(number) * 2.0 + 1.0, number.into())
                .await
                .unwrap(),
        );
    }
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;

    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    assert_eq!(outcome, Outcome::default(), "{}", pool.log_text());
    let processors = max_processors(&pods);
    assert!(
        (2..=3).contains(&processors),
        "{processors} processors at one time"
    );
    check_from_pods(&system, &pool.namespace).await;
}

/// Runs `separation-operator check --in-cluster` with all rights: each role can use Kafka, the store and its model, and no
/// Job is left.
async fn check_from_pods(system: &System, namespace: &str) {
    let cluster = &system.cluster;
    let image = &System::values()["image"];
    let image = [&image["repository"], &image["tag"]].map(|part| part.as_str().unwrap());
    let account = json!({"kind": "ServiceAccount", "name": "doctor", "namespace": "default"});
    let objects = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "doctor", "namespace": "default"}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "doctor"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [account],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "doctor", "namespace": "default"},
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": "doctor",
                "containers": [{
                    "name": "check",
                    "image": image.join(":"),
                    "args": ["check", "--namespace", namespace, "--in-cluster", "--json"],
                }],
            },
        }),
    ];
    cluster.apply(&objects).await.unwrap();
    let phase = eventually("the end of the check", STEP_TIMEOUT, async || {
        let pod = cluster.get("/api/v1/namespaces/default/pods/doctor").await?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        ensure!(["Succeeded", "Failed"].contains(&&*phase), "{pod:#}");
        anyhow::Ok(Some(phase))
    })
    .await;
    let log = cluster.kubectl(&["logs", "--namespace=default", "doctor"]);
    let log = log.await.unwrap();
    assert_eq!(phase, "Succeeded", "{log}");
    let findings: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (role, checks) in [
        (
            "processor",
            &["kafka", "topics", "rights", "store", "scratch", "model"][..],
        ),
        ("uploader", &["kafka", "topics", "rights", "store", "scratch"]),
    ] {
        let object = format!("SeparationPool {namespace}/vocals, in a pod of the {role}");
        for check in checks {
            let mut of_check = findings.iter();
            let is_ok = of_check.any(|finding| {
                finding["object"] == object && finding["check"] == *check && finding["result"] == "ok"
            });
            assert!(is_ok, "no {check} of the {role}:\n{log}");
        }
    }
    let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    assert_eq!(cluster.get(&path).await.unwrap()["items"], json!([]));
}
