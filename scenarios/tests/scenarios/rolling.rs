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

/// Two tasks that are under way while something is done to their pods.
async fn two_tasks(pool: &Pool<'_>, pods: &PodHistory, tasks: &mut BTreeSet<String>) -> Vec<String> {
    for _ in 0..2 {
        let number = tasks.len() as u64;
        tasks.insert(pool.submit(1.0, number).await.unwrap());
    }
    pool.busy_processors(pods, 2).await
}

/// Waits until each of these pods was told to end, all of them still there.
async fn told_to_end(pool: &Pool<'_>, pods: &PodHistory, names: &[String]) {
    eventually("workers told to end", PATIENCE, async || {
        let there = pool.processors(pods);
        let told = there.iter().filter(|pod| pod.is_told_to_end());
        let told: Vec<_> = told.map(Pod::name).collect();
        let waiting: Vec<_> = names
            .iter()
            .filter(|name| !told.contains(&name.as_str()))
            .collect();
        ensure!(waiting.len() < names.len(), "{waiting:?} are not told to end");
        anyhow::Ok(true)
    })
    .await;
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
        processors: 2,
        stabilization_seconds: 1,
        held_at: Some("staged_in"),
        ..PoolOptions::default()
    };
    let pool = Pool::create(&system, "rolling", options).await.unwrap();
    let pods = system.cluster.watch_pods(&pool.namespace);
    let mut tasks = BTreeSet::new();

    // One of two is idle, and goes beside the other.
    let hold = pool.hold().unwrap();
    two_tasks(&pool, &pods, &mut tasks).await;
    drop(hold);
    pool.all_told(&tasks).await;
    let hold = pool.hold().unwrap();
    tasks.insert(pool.submit(1.0, 2).await.unwrap());
    let busy = pool.busy_processors(&pods, 1).await;
    eventually("the idle one to go", PATIENCE, async || {
        let there = pool.processors(&pods);
        ensure!(there.len() == 1, "{} processors are there", there.len());
        ensure!(
            there[0].name() == busy[0] && !there[0].is_told_to_end(),
            "the busy one goes"
        );
        anyhow::Ok(true)
    })
    .await;
    drop(hold);
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    // Another setting.
    let hold = pool.hold().unwrap();
    let busy = two_tasks(&pool, &pods, &mut tasks).await;
    pool.patch(&json!({"processor": {"maxAttempts": 4}}))
        .await
        .unwrap();
    told_to_end(&pool, &pods, &busy).await;
    drop(hold);
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    // Another image.
    let node = &system.cluster.node;
    node.tag("localhost/separation-worker:dev", OTHER_IMAGE)
        .await
        .unwrap();
    let hold = pool.hold().unwrap();
    let busy = two_tasks(&pool, &pods, &mut tasks).await;
    for name in &busy {
        let pod = pods.there().into_iter().find(|pod| pod.name() == name).unwrap();
        assert_eq!(variable(&pod, "MAX_ATTEMPTS").as_deref(), Some("4"));
    }
    pool.patch(&json!({"image": OTHER_IMAGE})).await.unwrap();
    told_to_end(&pool, &pods, &busy).await;
    drop(hold);
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    // A node that is emptied, by evictions; what waits is worked on when there is a node again.
    let hold = pool.hold().unwrap();
    let busy = two_tasks(&pool, &pods, &mut tasks).await;
    for name in &busy {
        let pod = pods.there().into_iter().find(|pod| pod.name() == name).unwrap();
        assert_eq!(pod.object()["spec"]["containers"][0]["image"], OTHER_IMAGE);
    }
    let name = node.name();
    let drain = ["drain", &name, WORKERS, "--delete-emptydir-data", "--timeout=1s"];
    // It would wait for the pods, which wait for their tasks.
    let refused = system.cluster.kubectl(&drain).await.unwrap_err();
    assert!(format!("{refused:#}").contains("evicting pod"), "{refused:#}");
    told_to_end(&pool, &pods, &busy).await;
    drop(hold);
    eventually("the tasks under way", PATIENCE, async || {
        let processors = pool.processors(&pods);
        ensure!(
            processors
                .iter()
                .all(|pod| !busy.iter().any(|name| name == pod.name())),
            "still there"
        );
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
