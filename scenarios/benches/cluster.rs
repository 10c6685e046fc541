//! Measures the whole system on a real cluster, with the images that the environment names; prints one JSON object.
//!
//! For `cargo xtask bench`, which builds the images and writes down what is printed here.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use separation_scenarios::{Outcome, PATIENCE, Pool, PoolOptions, System, sixty_tasks_under_faults};
use separation_testbed::{ClusterOptions, KafkaOptions, eventually};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Arguments {
    /// Given by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Sixty tasks while everything around the workers fails; takes images with places where a worker can be held
    Faults {
        #[arg(long, default_value = "5")]
        runs: usize,
    },
    /// From a message at zero pods to the task's start in a pod
    Start {
        #[arg(long, default_value = "9")]
        runs: usize,
        /// The broker's `group.initial.rebalance.delay.ms`
        #[arg(long, default_value = "3000")]
        rebalance_delay_ms: u32,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let found = match Arguments::parse().scenario {
        Scenario::Faults { runs } => faults(runs).await?,
        Scenario::Start {
            runs,
            rebalance_delay_ms,
        } => start(runs, rebalance_delay_ms).await?,
    };
    #[expect(clippy::print_stdout, reason = "the one thing that this program prints")]
    {
        println!("{found}");
    }
    Ok(())
}

/// For those who watch.
#[expect(clippy::print_stderr, reason = "the figures alone go to standard output")]
fn say(line: &str) {
    eprintln!("{line}");
}

async fn faults(runs: usize) -> Result<Value> {
    let mut found = Vec::new();
    for run in 1..=runs {
        say(&format!("run {run} of {runs}"));
        let system = System::start(ClusterOptions::default()).await?;
        let Outcome {
            lost,
            separated_again,
            told_twice,
            ended_badly,
            ..
        } = sixty_tasks_under_faults(&system, say).await?.outcome;
        say(&format!(
            "{lost:?} {separated_again:?} {told_twice:?} {ended_badly:?}"
        ));
        found.push(json!({
            "lost": lost.len(),
            "separated_again": separated_again.len(),
            "told_twice": told_twice.len(),
            "ended_badly": ended_badly.len(),
        }));
    }
    Ok(found.into())
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
        let started = eventually("the task's start", PATIENCE, async || {
            let begun = pool.lines_saying("Received task")?;
            ensure!(begun == tasks.len(), "{begun} are begun");
            anyhow::Ok(Some(published.elapsed()))
        })
        .await;
        say(&format!("{:.2} s", started.as_secs_f64()));
        seconds.push(started.as_secs_f64());
        pool.all_told(&tasks).await;
        pool.no_pods(&pods).await;
    }
    let outcome = Outcome::read(&pool, &tasks, &pods).await?;
    ensure!(outcome == Outcome::default(), "{outcome:?}\n{}", pool.log_text());
    Ok(json!({"seconds": seconds}))
}
