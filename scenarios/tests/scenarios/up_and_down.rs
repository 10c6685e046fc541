//! From no pods to as many as the work deserves, and back.

use std::collections::BTreeSet;

use separation_scenarios::{Outcome, Pool, PoolOptions, System, most_processors};
use separation_testbed::ClusterOptions;

use crate::is_left_out;

#[tokio::test]
async fn ten_tasks_bring_pods_and_the_pods_go_when_all_is_done() {
    if is_left_out() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let said = system.release.test(&system.cluster).await.unwrap();
    assert!(said.contains("pools of all namespaces can be read"), "{said}");
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
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;

    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    assert_eq!(outcome, Outcome::default(), "{}", pool.log_text());
    let most = most_processors(&pods);
    assert!((2..=3).contains(&most), "{most} processors at once");
}
