//! Workers stop while they and others work: by scale-down, changed settings, another image and a drained
//! node.

use std::collections::BTreeSet;

use anyhow::ensure;
use separation_scenarios::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System};
use separation_testbed::{ClusterOptions, Pod, PodHistory, eventually};
use serde_json::json;

use crate::is_skipped;

/// Another tag of the worker image.
const OTHER_IMAGE: &str = "localhost/separation-worker:other";

/// Selector of worker pods.
const WORKERS: &str = "--pod-selector=app.kubernetes.io/name=separation-worker";

/// Starts a task and returns the name of the pod that is running it.
async fn one_task(pool: &Pool<'_>, pods: &PodHistory, tasks: &mut BTreeSet<String>) -> String {
    let number = tasks.len() as u64;
    tasks.insert(pool.submit(1.0, number).await.unwrap());
    pool.busy_processors(pods, 1).await.remove(0)
}

/// Waits until this pod has a deletion timestamp.
async fn wait_for_deletion(pods: &PodHistory, name: &str) {
    eventually("the deletion of the worker", STEP_TIMEOUT, async || {
        ensure!(
            existing_pod(pods, name).is_terminating(),
            "{name} is not being deleted"
        );
        anyhow::Ok(true)
    })
    .await;
}

/// The existing pod of this name.
fn existing_pod(pods: &PodHistory, name: &str) -> Pod {
    let found = pods.existing().into_iter().find(|pod| pod.name() == name);
    found.unwrap_or_else(|| panic!("{name} is gone"))
}

fn variable(pod: &Pod, name: &str) -> Option<String> {
    let variables = pod.object()["spec"]["containers"][0]["env"].as_array()?;
    let found = variables.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str()?.to_owned())
}

#[tokio::test]
async fn tasks_are_finished_by_the_pods_that_began_them() {
    if is_skipped() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let options = PoolOptions {
        processors: 3,
        stabilization_seconds: 1,
        held_at: Some("staged_in"),
        ..PoolOptions::default()
    };
    let pool = Pool::create(&system, "rolling", options).await.unwrap();
    let pods = system.cluster.watch_pods(&pool.namespace);
    let mut tasks = BTreeSet::new();

    // Two of three are idle and are deleted while the busy one still has to release revoked partitions.
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    let at_least = |replicas: u32| json!({"processor": {"scaling": {"minReplicas": replicas}}});
    pool.patch(&at_least(3)).await.unwrap();
    eventually("three processors", STEP_TIMEOUT, async || {
        let ready = pool.processors(&pods).iter().filter(|pod| pod.is_ready()).count();
        ensure!(ready == 3, "{ready} are ready");
        anyhow::Ok(true)
    })
    .await;
    pool.patch(&at_least(0)).await.unwrap();
    eventually("the scale-down of the idle ones", STEP_TIMEOUT, async || {
        assert!(
            !existing_pod(&pods, &busy).is_terminating(),
            "the busy one is being deleted"
        );
        let processors = pool.processors(&pods).len();
        ensure!(processors == 1, "{processors} processors exist");
        anyhow::Ok(true)
    })
    .await;
    drop(hold);
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;

    // Changed settings.
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    pool.patch(&json!({"processor": {"maxCrashes": 4}}))
        .await
        .unwrap();
    wait_for_deletion(&pods, &busy).await;
    drop(hold);
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;

    // Another image.
    let node = &system.cluster.node;
    node.tag("localhost/separation-worker:dev", OTHER_IMAGE)
        .await
        .unwrap();
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    assert_eq!(
        variable(&existing_pod(&pods, &busy), "MAX_ATTEMPTS").as_deref(),
        Some("4")
    );
    pool.patch(&json!({"processor": {"image": OTHER_IMAGE}}))
        .await
        .unwrap();
    wait_for_deletion(&pods, &busy).await;
    drop(hold);
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;

    // A node drained by evictions; queued tasks run when a node is available again.
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    let image = existing_pod(&pods, &busy).object()["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, OTHER_IMAGE);
    let name = node.name();
    let drain = ["drain", &name, WORKERS, "--delete-emptydir-data", "--timeout=1s"];
    // It would wait for the pods, which wait for their tasks.
    let refused = system.cluster.kubectl(&drain).await.unwrap_err();
    assert!(format!("{refused:#}").contains("evicting pod"), "{refused:#}");
    wait_for_deletion(&pods, &busy).await;
    drop(hold);
    eventually("the end of the pod", STEP_TIMEOUT, async || {
        let exists = pods.existing().iter().any(|pod| pod.name() == busy);
        ensure!(!exists, "{busy} still exists");
        anyhow::Ok(true)
    })
    .await;
    system.cluster.kubectl(&["uncordon", &name]).await.unwrap();
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;

    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    // The scheduler reports that it finds no node.
    let without_warnings = Outcome {
        warnings: Vec::new(),
        ..outcome
    };
    assert_eq!(without_warnings, Outcome::default(), "{}", pool.log_text());
}
