//! An operator that is killed repeatedly, at random times.

use std::time::Duration;

use serde_json::json;

use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest, SHORT_LEASE};

/// Number of kills.
const ROUNDS: i32 = 10;

/// Longest time between two kills.
const MAX_LIFE: Duration = Duration::from_secs(5);

#[expect(
    clippy::print_stdout,
    reason = "a failed test reports the times that it chose"
)]
#[tokio::test]
async fn an_operator_killed_at_any_moment_skips_no_message_and_reaches_the_desired_replicas() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, ROUNDS).await;
    // Earlier messages are skipped, by `Latest`; later ones never are.
    pool.publish_one_each(ROUNDS).await;
    let start = || OperatorProcess::start_as(rig.plane, &rig.operator_token, &rig.namespace, &SHORT_LEASE);
    let latest = json!({"processor": {"initialOffset": "Latest"}});
    let mut initialized = None;
    let mut published = 0;
    for round in 0..ROUNDS {
        let operator = start();
        if round == 0 {
            pool.apply(&latest).await;
        }
        let life = MAX_LIFE.mul_f64(random.f64());
        // A random time, independent of the operator's state.
        tokio::time::timeout(life, async {
            let status = pool.until_adopted().await;
            let offsets = status.processor.and_then(|role| role.offsets);
            assert!(initialized.is_none() || initialized == offsets, "seed {seed}");
            initialized = offsets;
            pool.kafka
                .publish_to(&pool.tasks(), round, "key", "{}")
                .await
                .expect("published");
            published += 1;
            std::future::pending::<()>().await;
        })
        .await
        .expect_err("it is never over");
        operator.process.kill_9().await.expect("it runs");
    }
    let operator = start();
    let status = pool.until_adopted().await;
    let offsets = status.processor.and_then(|role| role.offsets);
    assert!(initialized.is_none() || initialized == offsets, "seed {seed}");
    for round in 0..2 {
        pool.kafka
            .publish_to(&pool.tasks(), round, "key", "{}")
            .await
            .expect("published");
        published += 1;
    }
    let lag = pool
        .kafka
        .total_lag(&pool.group(), &pool.tasks())
        .await
        .expect("lag");
    assert_eq!(lag, published, "seed {seed}");
    let each = pool.kafka.lag(&pool.group(), &pool.tasks()).await.expect("lag");
    let with_work = each.iter().filter(|partition| partition.lag > 0).count();
    pool.until_replicas(i32::try_from(with_work).expect("few"), SOON)
        .await;
    operator.end().await;
}
