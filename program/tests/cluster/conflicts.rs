//! Two pools, or a pool and another client, that use the same consumer group.

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use separation_operator::crd::SeparationPoolStatus;
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::json;

use crate::members::{Member, Tasks, busy_members, ready_pods};
use crate::rig::{Rig, SOON};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Number of runs of the trial with a foreign consumer, and how many run in parallel. One is enough for each run of the
/// tests.
const TRIALS: &str = "SEPARATION_TEST_FOREIGN_CONSUMERS";
const PARALLEL_TRIALS: usize = 4;

/// Readings, one each second, within which a conflict is reported once the broker lists the consumer: the next one, and
/// those during which the test polls the broker and the status.
const READINGS_TO_CONFLICT: f64 = 5.0;

fn conflict(status: &SeparationPoolStatus) -> Option<&str> {
    let found = status
        .conditions
        .iter()
        .find(|found| found.type_ == "GroupConflict")?;
    (found.status == "True").then_some(&*found.message)
}

#[tokio::test]
async fn of_two_pools_with_one_group_the_newer_is_held_until_the_older_is_deleted() {
    let rig = Rig::new().await;
    // Neither its name nor its age in seconds makes it the first one.
    let older = PoolUnderTest::named(&rig, "z-older", 3).await;
    older.apply(&json!({})).await;
    let operator = OperatorProcess::start(&rig);
    older.until_adopted().await;
    let newer = PoolUnderTest::named(&rig, "newer", 1).await;
    // The same brokers by another address.
    let servers = newer.kafka.bootstrap().replace("127.0.0.1", "localhost");
    let same = json!({
        "kafka": {"bootstrapServers": servers},
        "processor": {"topic": older.tasks(), "consumerGroup": older.group()},
    });
    newer.apply(&same).await;
    let held = newer
        .until_status("conflict", SOON, |status| conflict(status).is_some())
        .await;
    let message = conflict(&held).expect("it is there");
    assert!(
        message.contains("z-older") && message.contains("fix:"),
        "{message}"
    );
    assert_eq!(
        held.processor.as_ref().map(|role| &*role.reason),
        Some("Conflict")
    );
    let stalled = held.conditions.iter().find(|found| found.type_ == "Stalled");
    let stalled = stalled.map(|found| (&*found.status, &*found.reason));
    assert_eq!(stalled, Some(("True", "GroupShared")));
    older.publish_one_each(3).await;
    older.until_replicas(3, SOON).await;
    assert_eq!(newer.replicas().await, Some(0));
    let now = older
        .pools()
        .get(&older.name)
        .await
        .expect("the older one")
        .status;
    assert_eq!(conflict(&now.expect("a status")), None);
    // Its other role has its own group, and works.
    newer
        .until_status("adopted uploader", SOON, |status| {
            let uploader = status.uploader.as_ref();
            uploader.is_some_and(|role| role.offsets.is_some())
        })
        .await;
    newer
        .kafka
        .publish_to(&newer.results(), 0, "key", "{}")
        .await
        .expect("published");
    newer
        .until_status("uploader", SOON, |status| {
            status
                .uploader
                .as_ref()
                .is_some_and(|role| role.replicas.desired == 1)
        })
        .await;
    older
        .pools()
        .delete(&older.name, &DeleteParams::default())
        .await
        .expect("the older one");
    newer.until_replicas(3, SOON).await;
    newer
        .until_status("end of the conflict", SOON, |status| conflict(status).is_none())
        .await;
    operator.end().await;
}

#[tokio::test]
async fn an_older_pool_with_refused_credentials_does_not_block_others() {
    let rig = Rig::new().await;
    let victim = PoolUnderTest::named(&rig, "victim", 3).await;
    let older = PoolUnderTest::named(&rig, "a-older", 1).await;
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "guessed"},
        "stringData": {"username": "u", "password": "p"},
    });
    let params = PatchParams::apply("a-person").force();
    let written = secrets.patch("guessed", &params, &Patch::Apply(secret)).await;
    written.expect("a secret");
    // The brokers require no credentials on this port, and refuse these.
    older
        .apply(&json!({
            "kafka": {"sasl": {
                "usernameSecretRef": {"name": "guessed"},
                "passwordSecretRef": {"name": "guessed"},
            }},
            "processor": {"topic": victim.tasks(), "consumerGroup": victim.group()},
        }))
        .await;
    let _operator = OperatorProcess::start(&rig);
    older
        .until_status("unknown lag", SOON, |status| {
            let lag = status.processor.as_ref().and_then(|role| role.lag.as_ref());
            lag.is_some_and(|lag| lag.messages.is_none())
        })
        .await;
    victim.apply(&json!({})).await;
    victim.publish_one_each(3).await;
    victim.until_replicas(3, SOON).await;
    let status = victim.pools().get(&victim.name).await.expect("the victim").status;
    assert_eq!(conflict(&status.expect("a status")), None);
}

/// Some of several workers have tasks, and the others are about to be removed, when a consumer of the KIP-848 protocol
/// joins their group. All variation follows from `seed`.
async fn foreign_consumer_trial(kafka: &Kafka, seed: u64) {
    const READ: &str = "separation_operator_kafka_read_seconds_count";
    let mut random = fastrand::Rng::with_seed(seed);
    let count = random.usize(3..=5);
    let replicas = i32::try_from(count).expect("a few");
    let rig = Rig::new().await;
    // Two partitions for each worker, so that some move to the joining member.
    let pool = PoolUnderTest::on(&rig, kafka, "vocals", 2 * replicas).await;
    let target = json!({"type": "TasksPerReplica", "tasksPerReplica": 2});
    pool.apply(&json!({"processor": {"scaling": {"target": target}}}))
        .await;
    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(2 * replicas).await;
    pool.until_replicas(replicas, SOON).await;
    let mut pods = ready_pods(&pool, count).await;
    random.shuffle(&mut pods);
    let members = busy_members(&pool, &pods, 2).await;
    let (busy, idle) = pods.split_at(random.usize(1..count));

    let read = async || operator.metric(READ).await.expect("metrics").unwrap_or_default();
    for pod in idle {
        members[pod.as_str()].now(Tasks::Commit);
    }
    let foreign = Member::of_consumer_protocol(&pool, "another-client", Tasks::Wait);
    // Kafka reports a group of the consumer protocol to DescribeGroups as `Dead`.
    eventually("the other client in the group", SOON, async || {
        anyhow::Ok(pool.kafka.group(&pool.group()).await?.state == "Dead")
    })
    .await;
    let before = read().await;
    let in_conflict = |status: &SeparationPoolStatus| conflict(status).is_some();
    let status = pool.until_status("conflict", SOON, in_conflict).await;
    let readings = read().await - before;
    let message = conflict(&status).expect("it is there");
    assert!(message.contains("(client ids \"another-client\")"), "{message}");
    let enough = readings <= READINGS_TO_CONFLICT;
    assert!(
        enough,
        "seed {seed}: after {readings} readings: {}",
        operator.log()
    );

    // The rebalance ends, and the conflict stays.
    eventually("partitions of the other client", 2 * SOON, async || {
        !foreign.owned().is_empty()
    })
    .await;
    operator.until_read_again(5.0).await;
    let status = pool.pools().get(&pool.name).await.expect("the pool").status;
    assert!(
        in_conflict(&status.expect("a status")),
        "seed {seed}: {}",
        operator.log()
    );
    let left = pool.pod_names().await;
    let stay = busy.iter().all(|pod| left.contains(pod));
    assert!(stay, "seed {seed}: {left:?} of {busy:?}: {}", operator.log());

    drop(foreign);
    pool.until_status("end of the conflict", SOON, |status| !in_conflict(status))
        .await;
}

#[tokio::test]
async fn a_consumer_of_the_kip_848_protocol_is_a_conflict_and_no_busy_pod_is_removed() {
    let trials = std::env::var(TRIALS).map_or(1, |trials| trials.parse().expect("a number"));
    // Kafka refuses the consumer once a worker has data of its assignor, which cooperative-sticky has from the second rebalance
    // on: all workers must be in the first one.
    let delay = ("group.initial.rebalance.delay.ms".into(), "3000".into());
    let options = KafkaOptions {
        settings: vec![delay],
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.expect("Kafka");
    let trial = |seed| foreign_consumer_trial(&kafka, seed);
    futures_util::stream::iter((0..trials).map(trial))
        .buffer_unordered(PARALLEL_TRIALS)
        .collect::<()>()
        .await;
}
