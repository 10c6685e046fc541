//! Evictions of workers in the middle of a task, with the notice of spot nodes, while another worker is idle.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use separation_contract::environment;
use separation_testbed::{Pod, PodHistory, eventually};
use serde_json::json;

use crate::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System};

/// How long a task has run when its worker is evicted.
const ELAPSED: Duration = Duration::from_secs(20);

/// Log message of a processor that starts a task.
const RECEIVED: &str = "Received task";

/// Time from the eviction of a worker to the end of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// 30 s, for tasks of a minute.
    HalfMinute,
    /// 2 min, for tasks of five minutes.
    TwoMinutes,
}

impl Notice {
    fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::HalfMinute => 30,
            Self::TwoMinutes => 120,
        })
    }

    /// `drainSeconds` of the processors: the notice, less the time to leave the group and exit.
    fn drain_seconds(self) -> u32 {
        match self {
            Self::HalfMinute => 25,
            Self::TwoMinutes => 110,
        }
    }

    /// Duration of a task, as far as its worker knows: its progress is 0 while it is held, so that the deadline is the
    /// estimate.
    fn task_seconds(self) -> u32 {
        match self {
            Self::HalfMinute => 60,
            Self::TwoMinutes => 300,
        }
    }
}

/// Result of [`evict_busy_workers`].
#[derive(Debug)]
pub struct EvictionsResult {
    /// Tasks and pods.
    pub outcome: Outcome,
    /// Time from each eviction to the start of its task on another worker.
    pub restarts: Vec<Duration>,
    /// Complete log output of the pods.
    pub log: String,
}

/// For each notice, one after the other: starts a task while a second worker is idle, and evicts the task's worker. Its
/// containers are killed at the end of the notice. Reports each restart to `progress`.
///
/// Heartbeats are sent every 3 s. One attempt that counts as a crash would make its task a dead letter.
///
/// # Errors
/// If a server that should respond does not.
///
/// # Panics
/// If an expected result does not happen in time.
pub async fn evict_busy_workers(
    system: &System,
    notices: &[Notice],
    progress: impl Fn(&str),
) -> Result<EvictionsResult> {
    let options = PoolOptions {
        processors: 3,
        stabilization_seconds: 1,
        held_at: Some("staged_in"),
        change: json!({"processor": {"maxCrashes": 1, "consumer": {"heartbeatIntervalMs": 3_000}}}),
        ..PoolOptions::default()
    };
    let pool = Pool::create(system, "evictions", options).await?;
    let pods = system.cluster.watch_pods(&pool.namespace);
    let (mut tasks, mut restarts) = (BTreeSet::new(), Vec::new());
    for notice in notices {
        let restart = evict_busy_worker(&pool, &pods, *notice, &mut tasks).await?;
        progress(&format!("{notice:?}: {:.1} s", restart.as_secs_f64()));
        restarts.push(restart);
    }
    Ok(EvictionsResult {
        outcome: Outcome::read(&pool, &tasks, &pods).await?,
        restarts,
        log: pool.log_text(),
    })
}

/// Returns the time from the eviction to the start of the task on another worker.
async fn evict_busy_worker(
    pool: &Pool<'_>,
    pods: &PodHistory,
    notice: Notice,
    tasks: &mut BTreeSet<String>,
) -> Result<Duration> {
    // New workers: others would estimate this task by the one before.
    pool.patch(&json!({"processor": {
        "drainSeconds": notice.drain_seconds(),
        "taskDeadlineSeconds": notice.task_seconds(),
        "scaling": {"minReplicas": 2},
    }}))
    .await?;
    wait_for_two_idle(pool, pods, notice).await;
    let hold = pool.hold()?;
    let number = u64::try_from(tasks.len())?;
    let task = pool.submit(1.0, number).await?;
    tasks.insert(task.clone());
    let busy = pool.busy_processors(pods, 1).await.remove(0);
    tokio::time::sleep(ELAPSED).await;
    let evicted_at = Instant::now();
    let cluster = &pool.system.cluster;
    cluster.evict(&pool.namespace, &busy, notice.duration()).await?;
    let restart = eventually("a start on another worker", STEP_TIMEOUT, async || {
        let logs = pool.logs()?;
        let mut others = logs.iter().filter(|log| log.pod != busy);
        let starts = |line: &String| line.contains(RECEIVED) && line.contains(&task);
        ensure!(
            others.any(|log| log.lines.iter().any(starts)),
            "only {busy} has started {task}"
        );
        anyhow::Ok(Some(evicted_at.elapsed()))
    })
    .await;
    drop(hold);
    pool.wait_for_all_webhooks(tasks).await;
    // A worker that is still starting cannot drain.
    wait_for_two_idle(pool, pods, notice).await;
    pool.patch(&json!({"processor": {"scaling": {"minReplicas": 0}}}))
        .await?;
    pool.wait_until_no_pods(pods).await;
    Ok(restart)
}

/// Waits until two processors with this notice's settings are members of the group without a task.
async fn wait_for_two_idle(pool: &Pool<'_>, pods: &PodHistory, notice: Notice) {
    let expected = notice.drain_seconds().to_string();
    eventually("two idle processors", STEP_TIMEOUT, async || {
        let existing = pool.processors(pods);
        let are_new = existing
            .iter()
            .all(|pod| drain_seconds(pod) == Some(expected.as_str()));
        let replicas = pool.status().await?["processor"]["replicas"].take();
        ensure!(
            are_new && existing.len() == 2 && replicas["ready"] == 2 && replicas["idle"] == 2,
            "{} exist; {replicas}",
            existing.len()
        );
        anyhow::Ok(true)
    })
    .await;
}

fn drain_seconds(pod: &Pod) -> Option<&str> {
    let variables = pod.object()["spec"]["containers"][0]["env"].as_array()?;
    let found = variables
        .iter()
        .find(|variable| variable["name"] == environment::DRAIN_SECONDS)?;
    found["value"].as_str()
}
