//! Pods deleted by a user.

use std::collections::BTreeSet;

use separation_scenarios::{Outcome, Pool, PoolOptions, System};
use separation_testbed::ClusterOptions;

use crate::is_skipped;

#[tokio::test]
async fn a_busy_pod_that_is_deleted_finishes_its_task_before_it_ends() {
    if is_skipped() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let options = PoolOptions {
        processors: 1,
        held_at: Some("staged_in"),
        ..PoolOptions::default()
    };
    let pool = Pool::create(&system, "media", options).await.unwrap();
    let pods = system.cluster.watch_pods(&pool.namespace);
    let hold = pool.hold().unwrap();
    let mut tasks = BTreeSet::new();
    for number in 0..2 {
        tasks.insert(pool.submit(1.0, number).await.unwrap());
    }
    let busy = pool.processors_with_log("Held", 1).await;
    let delete = [
        "delete",
        "pod",
        &busy[0],
        "--namespace",
        &pool.namespace,
        "--wait=false",
    ];
    system.cluster.kubectl(&delete).await.unwrap();
    let draining = pool
        .processors_with_log("Finishing the running task before the shutdown", 1)
        .await;
    assert_eq!(draining, busy);
    // The preStop hook blocks, so Kubernetes waits too.
    let existing = pods.existing();
    let deleted = existing.iter().find(|pod| pod.name() == busy[0]);
    assert!(
        deleted.is_some_and(|pod| pod.container_exit().is_none()),
        "{existing:?}"
    );

    drop(hold);
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;
    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    assert_eq!(outcome, Outcome::default(), "{}", pool.log_text());
}
