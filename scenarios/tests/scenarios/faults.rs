//! Sixty tasks of all lengths, from no pods to many and back, while everything around the workers fails in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use separation_scenarios::{Outcome, PATIENCE, Pool, PoolOptions, System, most_processors};
use separation_testbed::{ClusterOptions, Server, eventually};

use crate::is_left_out;

/// How long S3 is away.
const AWAY: Duration = Duration::from_secs(60);

/// What fails while workers are in the middle of tasks, when so many callers were told.
const FAULTS: [(usize, Fault); 6] = [
    (2, Fault::Leader),
    (12, Fault::Api),
    (20, Fault::Kubelet),
    (28, Fault::Kafka),
    (36, Fault::S3),
    (44, Fault::Runtime),
];

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The leading replica of the operator is killed.
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

impl Fault {
    async fn strike(self, system: &System) -> anyhow::Result<()> {
        let cluster = &system.cluster;
        match self {
            Self::Leader => {
                let leader = system.leader().await?;
                let namespace = &system.release.namespace;
                let delete = ["delete", "pod", &leader, "--namespace", namespace];
                let delete = [&delete[..], &["--grace-period=0", "--force"]].concat();
                cluster.kubectl(&delete).await?;
                eventually("another leader", PATIENCE, async || {
                    let now = system.leader().await?;
                    ensure!(now != leader, "{now} leads");
                    anyhow::Ok(true)
                })
                .await;
            }
            Self::Api => {
                cluster.plane.kill(Server::Api).await?;
                cluster.plane.start_again(Server::Api).await?;
            }
            Self::Kubelet => {
                cluster.node.kill_kubelet().await?;
                cluster.node.start_kubelet().await?;
            }
            Self::Kafka => {
                cluster.kafka.kill_broker(0).await?;
                cluster.kafka.start_broker(0).await?;
            }
            Self::S3 => {
                cluster.s3.process().sigstop()?;
                tokio::time::sleep(AWAY).await;
                cluster.s3.process().sigcont()?;
            }
            Self::Runtime => cluster.node.restart_runtime().await?,
        }
        Ok(())
    }
}

#[tokio::test]
async fn sixty_tasks_survive_all_that_can_fail() {
    if is_left_out() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let options = PoolOptions {
        processors: 4,
        held_at: Some("staged_in"),
        ..PoolOptions::default()
    };
    let pool = Pool::create(&system, "faults", options).await.unwrap();
    let pods = system.cluster.watch_pods(&pool.namespace);
    let hold = pool.hold().unwrap();
    let mut tasks = BTreeSet::new();
    for number in 1..=60_u8 {
        tasks.insert(pool.submit(f32::from(number), number.into()).await.unwrap());
    }
    pool.busy_processors(&pods, 4).await;
    drop(hold);
    for (told, fault) in FAULTS {
        pool.some_told(told).await;
        let hold = pool.hold().unwrap();
        pool.busy_processors(&pods, 1).await;
        println!("{} of 60 told, and now {fault:?}", pool.told().len());
        if matches!(fault, Fault::S3) {
            // Nobody would notice while all wait.
            drop(hold);
            fault.strike(&system).await.unwrap();
        } else {
            fault.strike(&system).await.unwrap();
            drop(hold);
        }
    }
    pool.all_told(&tasks).await;
    pool.no_pods(&pods).await;
    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    // What Kubernetes says while its parts are away is no fault of a worker.
    let judged = Outcome {
        warnings: Vec::new(),
        ..outcome
    };
    assert_eq!(judged, Outcome::default(), "{}", pool.log_text());
    let most = most_processors(&pods);
    assert!((2..=4).contains(&most), "{most} processors at once");
}
