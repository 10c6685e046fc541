//! Sixty tasks of different lengths, from zero pods to many and back, while each component around the workers
//! fails in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use separation_testbed::{Pod, Server, eventually};

use crate::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System, max_processors};

/// How long S3 is unreachable.
const S3_OUTAGE: Duration = Duration::from_secs(60);

const TASKS: u8 = 60;

/// Faults, each injected in the middle of a task once this many tasks have had their webhook.
const FAULTS: [(usize, Fault); 6] = [
    (2, Fault::Leader),
    (12, Fault::Api),
    (20, Fault::Kubelet),
    (28, Fault::Kafka),
    (36, Fault::S3),
    (44, Fault::Runtime),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Kills the operator's leader; another instance takes over the lease.
    Leader,
    /// Kills and restarts the API server.
    Api,
    /// Kills and restarts the kubelet; pods keep running.
    Kubelet,
    /// Kills and restarts the broker.
    Kafka,
    /// S3 does not respond for a minute.
    S3,
    /// Kills and restarts containerd; containers keep running.
    Runtime,
}

/// Result of [`sixty_tasks_under_faults`].
#[derive(Debug)]
pub struct FaultsResult {
    /// Tasks and pods, without warning events: those that Kubernetes emits while its components are down are
    /// not the workers' fault.
    pub outcome: Outcome,
    /// The most processors at one time; four are allowed.
    pub max_processors: usize,
    /// Complete log output of the pods.
    pub log: String,
}

/// Submits sixty tasks of 1 to 60 s on 12 partitions to a new pool. One after the other, while workers are in
/// the middle of tasks, kills and restarts the operator's leader, the API server, the kubelet, Kafka and
/// containerd, and makes S3 unreachable for a minute. Reports each step to `progress`.
///
/// # Errors
/// If a server that should respond does not.
///
/// # Panics
/// If an expected result does not happen in time.
pub async fn sixty_tasks_under_faults(system: &System, progress: impl Fn(&str)) -> Result<FaultsResult> {
    let options = PoolOptions {
        processors: 4,
        held_at: Some("staged_in"),
        ..PoolOptions::default()
    };
    let pool = Pool::create(system, "faults", options).await?;
    let pods = system.cluster.watch_pods(&pool.namespace);
    let hold = pool.hold()?;
    let mut tasks = BTreeSet::new();
    for number in 1..=TASKS {
        tasks.insert(pool.submit(f32::from(number), number.into()).await?);
    }
    progress("all tasks are published");
    drop(hold);
    for (webhooks, fault) in FAULTS {
        pool.wait_for_webhooks(webhooks).await;
        let hold = pool.hold()?;
        pool.busy_processors(&pods, 1).await;
        progress(&format!(
            "{} of {TASKS} webhooks delivered; next fault: {fault:?}",
            pool.delivered_webhooks().len()
        ));
        // An S3 outage has no effect while all workers are held.
        let hold = Some(hold).filter(|_| fault != Fault::S3);
        fault.inject(system).await.with_context(|| format!("{fault:?}"))?;
        drop(hold);
    }
    pool.wait_for_all_webhooks(&tasks).await;
    progress("all webhooks are delivered");
    pool.wait_until_no_pods(&pods).await;
    let outcome = Outcome::read(&pool, &tasks, &pods).await?;
    Ok(FaultsResult {
        outcome: Outcome {
            warnings: Vec::new(),
            ..outcome
        },
        max_processors: max_processors(&pods),
        log: pool.log_text(),
    })
}

impl Fault {
    async fn inject(self, system: &System) -> Result<()> {
        let cluster = &system.cluster;
        match self {
            Self::Leader => kill_leader(system).await,
            Self::Api => {
                cluster.plane.kill(Server::Api).await?;
                cluster.plane.start_again(Server::Api).await
            }
            Self::Kubelet => {
                cluster.node.kill_kubelet().await?;
                cluster.node.start_kubelet().await
            }
            Self::Kafka => {
                cluster.kafka.kill_broker(0).await?;
                cluster.kafka.start_broker(0).await
            }
            Self::S3 => {
                cluster.s3.process().sigstop()?;
                tokio::time::sleep(S3_OUTAGE).await;
                cluster.s3.process().sigcont()
            }
            Self::Runtime => cluster.node.restart_runtime().await,
        }
    }
}

async fn kill_leader(system: &System) -> Result<()> {
    let leader = system.leader().await?;
    let pods = system.cluster.pods(&system.release.namespace).await?;
    let pod = pods.iter().find(|pod| leader.starts_with(pod.name()));
    let container = pod.and_then(Pod::container_id);
    let container = container.with_context(|| format!("{leader} is not a running pod"))?;
    system.cluster.node.kill_container(container).await?;
    eventually("another leader", STEP_TIMEOUT, async || {
        let now = system.leader().await?;
        ensure!(now != leader, "{now} is still the leader");
        anyhow::Ok(true)
    })
    .await;
    Ok(())
}
