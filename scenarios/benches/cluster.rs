//! Benchmarks the complete system on a real cluster, with the images from the environment; prints one JSON
//! object.
//!
//! Run by `cargo xtask bench`, which builds the images and records the output.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use separation_scenarios::{
    Notice, Outcome, Pool, PoolOptions, STAGES, STEP_TIMEOUT, System, alerts_under_load, evict_busy_workers,
    record_scale_up, run_local_image, sixty_tasks_under_faults, start_by_stage,
};
use separation_testbed::{ClusterOptions, KafkaOptions, eventually};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Arguments {
    /// Passed by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Sixty tasks with faults around the workers; needs images built with the `faults` hold points
    Faults {
        #[arg(long, default_value = "5")]
        runs: usize,
    },
    /// Workers evicted with a notice of 30 s in the middle of tasks; needs images built with the `faults` hold points
    Evictions {
        #[arg(long, default_value = "20")]
        runs: usize,
    },
    /// Time from a message at zero pods to the start of the task in a pod
    Start {
        #[arg(long, default_value = "9")]
        runs: usize,
        /// The broker's `group.initial.rebalance.delay.ms`
        #[arg(long, default_value = "3000")]
        rebalance_delay_ms: u32,
    },
    /// Time from a message at zero pods to the start of the task in a pod, by stage
    Stages {
        #[arg(long, default_value = "9")]
        runs: usize,
    },
    /// Output of `kubectl get seppool --watch` while a pool scales up for 24 songs and back to zero
    Recording,
    /// Time to the first response of a container of the image of `local`, and from a song to its stems
    LocalImage {
        #[arg(long, default_value = "5")]
        runs: usize,
    },
    /// Alerts that fire or are pending under a steady load without faults
    HealthyHour {
        #[arg(long, default_value = "60")]
        minutes: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let results = match Arguments::parse().scenario {
        Scenario::Faults { runs } => faults(runs).await?,
        Scenario::Evictions { runs } => evictions(runs).await?,
        Scenario::Start {
            runs,
            rebalance_delay_ms,
        } => start(runs, rebalance_delay_ms).await?,
        Scenario::Stages { runs } => stages(runs).await?,
        Scenario::Recording => recording().await?,
        Scenario::LocalImage { runs } => local_image(runs).await?,
        Scenario::HealthyHour { minutes } => healthy_hour(minutes).await?,
    };
    #[expect(clippy::print_stdout, reason = "the result of this program")]
    {
        println!("{results}");
    }
    Ok(())
}

/// Progress messages, on standard error.
#[expect(clippy::print_stderr, reason = "standard output is for the results")]
fn progress(line: &str) {
    eprintln!("{line}");
}

async fn faults(runs: usize) -> Result<Value> {
    let mut results = Vec::new();
    for run in 1..=runs {
        progress(&format!("run {run} of {runs}"));
        let system = System::start(ClusterOptions::default()).await?;
        let Outcome {
            lost,
            repeated,
            duplicate_results,
            failed_pods,
            ..
        } = sixty_tasks_under_faults(&system, progress).await?.outcome;
        progress(&format!(
            "{lost:?} {repeated:?} {duplicate_results:?} {failed_pods:?}"
        ));
        results.push(json!({
            "lost": lost.len(),
            "repeated": repeated.len(),
            "duplicate_results": duplicate_results.len(),
            "failed_pods": failed_pods.len(),
        }));
    }
    Ok(results.into())
}

async fn evictions(runs: usize) -> Result<Value> {
    let system = System::start(ClusterOptions::default()).await?;
    let result = evict_busy_workers(&system, &vec![Notice::HalfMinute; runs], progress).await?;
    let Outcome {
        lost,
        repeated,
        failed_pods,
        dead_letters,
        ..
    } = result.outcome;
    progress(&format!("{lost:?} {repeated:?} {failed_pods:?}"));
    let seconds: Vec<f64> = result.restarts.iter().map(Duration::as_secs_f64).collect();
    Ok(json!({
        "seconds": seconds,
        "lost": lost.len(),
        "repeated": repeated.len(),
        "failed_pods": failed_pods.len(),
        "dead_letters": dead_letters,
    }))
}

async fn start(runs: usize, rebalance_delay_ms: u32) -> Result<Value> {
    let delay = (
        "group.initial.rebalance.delay.ms".to_owned(),
        rebalance_delay_ms.to_string(),
    );
    let options = ClusterOptions {
        kafka: KafkaOptions {
            settings: vec![delay],
            ..KafkaOptions::default()
        },
        ..ClusterOptions::default()
    };
    let system = System::start(options).await?;
    let pool = Pool::create(&system, "media", PoolOptions::default()).await?;
    let pods = system.cluster.watch_pods(&pool.namespace);
    let mut tasks = BTreeSet::new();
    let mut seconds = Vec::new();
    for number in 0..u64::try_from(runs)? {
        let published = Instant::now();
        tasks.insert(pool.submit(1.0, number).await?);
        let started = eventually("the task's start", STEP_TIMEOUT, async || {
            let started_tasks = pool.log_lines_with("Received task")?;
            ensure!(started_tasks == tasks.len(), "{started_tasks} have started");
            anyhow::Ok(Some(published.elapsed()))
        })
        .await;
        progress(&format!("{:.2} s", started.as_secs_f64()));
        seconds.push(started.as_secs_f64());
        pool.wait_for_all_webhooks(&tasks).await;
        pool.wait_until_no_pods(&pods).await;
    }
    let outcome = Outcome::read(&pool, &tasks, &pods).await?;
    ensure!(outcome == Outcome::default(), "{outcome:?}\n{}", pool.log_text());
    Ok(json!({"seconds": seconds}))
}

async fn stages(runs: usize) -> Result<Value> {
    let system = System::start(ClusterOptions::default()).await?;
    let pool = Pool::create(&system, "media", PoolOptions::default()).await?;
    let pods = system.cluster.watch_pods(&pool.namespace);
    let mut tasks = BTreeSet::new();
    let mut seconds = vec![Vec::new(); STAGES.len()];
    for number in 0..u64::try_from(runs)? {
        let (task, times) = start_by_stage(&pool, &pods, number).await?;
        progress(&format!("{times:.2?}"));
        for (seconds, time) in seconds.iter_mut().zip(times) {
            seconds.push(time.as_secs_f64());
        }
        tasks.insert(task);
        pool.wait_for_all_webhooks(&tasks).await;
        pool.wait_until_no_pods(&pods).await;
    }
    let outcome = Outcome::read(&pool, &tasks, &pods).await?;
    ensure!(outcome == Outcome::default(), "{outcome:?}\n{}", pool.log_text());
    let stages = STAGES.iter().zip(seconds);
    let stages = stages.map(|(name, seconds)| json!({"name": name, "seconds": seconds}));
    Ok(stages.collect::<Vec<_>>().into())
}

async fn recording() -> Result<Value> {
    let system = System::start(ClusterOptions::default()).await?;
    let recording = record_scale_up(&system).await?;
    Ok(json!({
        "watch": recording.watch,
        "replicas_seconds": recording.replicas.as_secs_f64(),
        "webhooks_seconds": recording.webhooks.as_secs_f64(),
        "no_pods_seconds": recording.no_pods.as_secs_f64(),
    }))
}

async fn local_image(runs: usize) -> Result<Value> {
    let system = System::without_release(ClusterOptions::default()).await?;
    let (mut start, mut song) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let times = run_local_image(&system).await?;
        progress(&format!("{times:.1?}"));
        start.push(times.start.as_secs_f64());
        song.push(times.song.as_secs_f64());
    }
    Ok(json!({"start_seconds": start, "song_seconds": song}))
}

async fn healthy_hour(minutes: u64) -> Result<Value> {
    let system = System::start(ClusterOptions::default()).await?;
    let result = alerts_under_load(&system, Duration::from_secs(60 * minutes), progress).await?;
    let outcome = result.outcome;
    ensure!(outcome == Outcome::default(), "the load had faults: {outcome:?}");
    Ok(json!({
        "minutes": minutes,
        "tasks": result.tasks,
        "fired": result.fired,
        "pending": result.pending,
    }))
}
