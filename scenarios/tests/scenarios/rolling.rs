//! Workers go while they and others work: by scale-in, by other settings, by another image, and because their node is
//! emptied.

use std::collections::BTreeSet;

use anyhow::ensure;
use separation_scenarios::{Outcome, PATIENCE, Pool, PoolOptions, System};
use separation_testbed::{ClusterOptions, Pod, PodHistory, eventually};
use serde_json::json;

use crate::is_left_out;

/// Another name for the image of workers.
const OTHER_IMAGE: &str = "localhost/separation-worker:other";

/// What pods of workers are chosen by.
const WORKERS: &str = "--pod-selector=app.kubernetes.io/name=separation-worker";

/// A task that is under way while something is done to its pod, whose name it gives.
async fn one_task(pool: &Pool<'_>, pods: &PodHistory, tasks: &mut BTreeSet<String>) -> String {
    let number = tasks.len() as u64;
    tasks.insert(pool.submit(1.0, number).await.unwrap());
    pool.busy_processors(pods, 1).await.remove(0)
}

/// Waits until this pod was told to end.
async fn told_to_end(pods: &PodHistory, name: &str) {
    eventually("the worker told to end", PATIENCE, async || {
        ensure!(there(pods, name).is_told_to_end(), "{name} goes on");
        anyhow::Ok(true)
    })
    .await;
}

/// A pod that is there.
fn there(pods: &PodHistory, name: &str) -> Pod {
    let found = pods.there().into_iter().find(|pod| pod.name() == name);
    found.unwrap_or_else(|| panic!("{name} is gone"))
}

fn variable(pod: &Pod, name: &str) -> Option<String> {
    let variables = pod.object()["spec"]["containers"][0]["env"].as_array()?;
    let found = variables.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str()?.to_owned())
}

#[tokio::test]
async fn tasks_are_finished_by_the_pods_that_began_them() {
    if is_left_out() {
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

    // Two of three are idle, and go beside the third, which is still to give partitions up for them.
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    let at_least = |replicas: u32| json!({"processor": {"scaling": {"minReplicas": replicas}}});
    pool.patch(&at_least(3)).await.unwrap();
    eventually("three processors", PATIENCE, async || {
        let ready = pool.processors(&pods).iter().filter(|pod| pod.is_ready()).count();
        ensure!(ready == 3, "{ready} are ready");
        anyhow::Ok(true)
    })
    .await;
    pool.patch(&at_least(0)).await.unwrap();
    eventually("the idle ones to go", PATIENCE, async || {
        assert!(!there(&pods, &busy).is_told_to_end(), "the busy one goes");
        let processors = pool.processors(&pods).len();
        ensure!(processors == 1, "{processors} processors are there");
        anyhow::Ok(true)
    })
    .await;
    drop(hold);
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    // Another setting.
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    pool.patch(&json!({"processor": {"maxAttempts": 4}}))
        .await
        .unwrap();
    told_to_end(&pods, &busy).await;
    drop(hold);
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    // Another image.
    let node = &system.cluster.node;
    node.tag("localhost/separation-worker:dev", OTHER_IMAGE)
        .await
        .unwrap();
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    assert_eq!(
        variable(&there(&pods, &busy), "MAX_ATTEMPTS").as_deref(),
        Some("4")
    );
    pool.patch(&json!({"image": OTHER_IMAGE})).await.unwrap();
    told_to_end(&pods, &busy).await;
    drop(hold);
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    // A node that is emptied, by evictions; what waits is worked on when there is a node again.
    let hold = pool.hold().unwrap();
    let busy = one_task(&pool, &pods, &mut tasks).await;
    let image = there(&pods, &busy).object()["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, OTHER_IMAGE);
    let name = node.name();
    let drain = ["drain", &name, WORKERS, "--delete-emptydir-data", "--timeout=1s"];
    // It would wait for the pods, which wait for their tasks.
    let refused = system.cluster.kubectl(&drain).await.unwrap_err();
    assert!(format!("{refused:#}").contains("evicting pod"), "{refused:#}");
    told_to_end(&pods, &busy).await;
    drop(hold);
    eventually("the end of the pod", PATIENCE, async || {
        let is_there = pods.there().iter().any(|pod| pod.name() == busy);
        ensure!(!is_there, "{busy} is there");
        anyhow::Ok(true)
    })
    .await;
    system.cluster.kubectl(&["uncordon", &name]).await.unwrap();
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    // A scheduler that finds no node says so.
    let judged = Outcome {
        warnings: Vec::new(),
        ..outcome
    };
    assert_eq!(judged, Outcome::default(), "{}", pool.log_text());
}
