//! Sixty tasks of all lengths, from no pods to many and back, while everything around the workers fails in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use separation_testbed::{Pod, Server, eventually};

use crate::{Outcome, PATIENCE, Pool, PoolOptions, System, most_processors};

/// How long S3 is away.
const AWAY: Duration = Duration::from_secs(60);

const TASKS: u8 = 60;

/// What fails, in the middle of a task, when so many callers were told.
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
    /// The leading replica of the operator is killed, and another start of one leads.
    Leader,
    /// The API server is killed and starts again.
    Api,
    /// The kubelet is killed and starts again; pods go on.
    Kubelet,
    /// The broker is killed and starts again.
    Kafka,
    /// S3 answers nothing for a minute.
    S3,
    /// containerd is killed and starts again; containers go on.
    Runtime,
}

/// What became of [`sixty_tasks_under_faults`].
#[derive(Debug)]
pub struct Survival {
    /// Of tasks and pods. Warnings are left out: what Kubernetes says while its parts are away is no fault of a worker.
    pub outcome: Outcome,
    /// The most processors that were there at once: four are allowed.
    pub most_processors: usize,
    /// All that the pods printed.
    pub log: String,
}

/// Gives a pool of its own sixty tasks of 1 to 60 s on 12 partitions and has, one after the other while workers are in
/// the middle of tasks, the operator's leader, the API server, kubelet, Kafka and containerd killed and started
/// again, and S3 be away for a minute. Says on `progress` what is done.
///
/// # Errors
/// When a server that should answer does not.
///
/// # Panics
/// When something that must happen in the end does not.
pub async fn sixty_tasks_under_faults(system: &System, progress: impl Fn(&str)) -> Result<Survival> {
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
    progress("all tasks are posted");
    drop(hold);
    for (told, fault) in FAULTS {
        pool.some_told(told).await;
        let hold = pool.hold()?;
        pool.busy_processors(&pods, 1).await;
        progress(&format!(
            "{} of {TASKS} told, and now {fault:?}",
            pool.told().len()
        ));
        // Nobody would miss S3 while all wait.
        let hold = Some(hold).filter(|_| fault != Fault::S3);
        fault.strike(system).await.with_context(|| format!("{fault:?}"))?;
        drop(hold);
    }
    pool.all_told(&tasks).await;
    progress("all are told");
    pool.no_pods(&pods).await;
    let outcome = Outcome::read(&pool, &tasks, &pods).await?;
    Ok(Survival {
        outcome: Outcome {
            warnings: Vec::new(),
            ..outcome
        },
        most_processors: most_processors(&pods),
        log: pool.log_text(),
    })
}

impl Fault {
    async fn strike(self, system: &System) -> Result<()> {
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
                tokio::time::sleep(AWAY).await;
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
    let container = container.with_context(|| format!("{leader} is no pod that runs"))?;
    system.cluster.node.kill_container(container).await?;
    eventually("another leader", PATIENCE, async || {
        let now = system.leader().await?;
        ensure!(now != leader, "{now} leads");
        anyhow::Ok(true)
    })
    .await;
    Ok(())
}
