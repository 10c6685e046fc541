//! Scale-up from zero to the replicas that the backlog needs, and back down.

use std::collections::BTreeSet;

use separation_scenarios::{Outcome, Pool, PoolOptions, System, max_processors};
use separation_testbed::ClusterOptions;

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
}
