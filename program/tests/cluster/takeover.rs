//! Groups and clusters that are new to a pool: committed offsets are kept, and missing ones are initialized before the
//! first worker starts.

use kube::api::{DeleteParams, Patch, PatchParams};
use separation_operator::crd::SeparationPoolStatus;
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::json;

use crate::adoption::known_lag;
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

async fn committed(kafka: &Kafka, group: &str, topic: &str) -> Vec<Option<i64>> {
    let lag = kafka.lag(group, topic).await.expect("an answer");
    lag.iter().map(|partition| partition.committed).collect()
}

fn cluster_id(status: &SeparationPoolStatus) -> Option<String> {
    let offsets = status.processor.as_ref()?.offsets.as_ref()?;
    Some(offsets.cluster_id.clone())
}

#[tokio::test]
async fn offsets_copied_to_another_cluster_are_not_overwritten() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    pool.publish_one_each(2).await;
    let tasks = pool.tasks();
    let carried = pool.kafka.commit(&pool.group(), &tasks, &[1, 1]).await;
    carried.expect("committed");
    pool.apply(&json!({})).await;
    let _operator = OperatorProcess::start(&rig);
    let before = pool.until_adopted().await;

    let other = Kafka::start(KafkaOptions::default()).await.expect("Kafka");
    other.create_topic(&tasks, 2).await.expect("a topic");
    other.create_topic(&pool.results(), 1).await.expect("a topic");
    for partition in [0, 1] {
        for _ in 0..3 {
            let published = other.publish_to(&tasks, partition, "key", "{}").await;
            published.expect("published");
        }
    }
    let carried = other.commit(&pool.group(), &tasks, &[2, 3]).await;
    carried.expect("committed");
    pool.apply(&json!({"kafka": {"bootstrapServers": other.bootstrap()}}))
        .await;
    let old = cluster_id(&before);
    pool.until_status("adoption of the other cluster", SOON, |status| {
        cluster_id(status) != old && known_lag(status) == Some(1)
    })
    .await;
    pool.until_replicas(1, SOON).await;
    let found = committed(&other, &pool.group(), &tasks).await;
    assert_eq!(found, [Some(2), Some(3)]);
}

#[tokio::test]
async fn a_changed_group_gets_its_offsets_initialized_while_old_pods_terminate() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 4).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(4).await;
    let pods = eventually("four pods", SOON, async || {
        let names = pool.pod_names().await;
        (names.len() == 4).then_some(names)
    })
    .await;
    // Like pods that finish their tasks.
    let slowly = json!({"metadata": {"finalizers": ["tests.separation.dev/ends-slowly"]}});
    for name in &pods {
        let patched = pool
            .pods()
            .patch(name, &PatchParams::default(), &Patch::Merge(&slowly))
            .await;
        patched.expect("a pod");
    }
    pool.pools()
        .delete(&pool.name, &DeleteParams::default())
        .await
        .expect("the pool");
    eventually("pods that end", SOON, async || pool.pod_names().await.is_empty()).await;
    let group = format!("{}-again", pool.group());
    pool.apply(&json!({"processor": {"consumerGroup": group, "initialOffset": "Latest"}}))
        .await;
    let status = pool.until_adopted().await;
    assert_eq!(known_lag(&status), Some(0));
    let tasks = pool.tasks();
    assert_eq!(committed(pool.kafka, &group, &tasks).await, [Some(1); 4]);
    operator.until_read_again(4.0).await;
    assert_eq!(pool.replicas().await, Some(0), "{}", operator.log());
    let left = pool.pods().list(&Default::default()).await.expect("pods");
    assert_eq!(left.items.len(), 4, "the old pods still end");
}
