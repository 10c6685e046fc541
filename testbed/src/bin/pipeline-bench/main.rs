//! Benchmarks the Kafka roles and the API with real brokers, a real object store and real processes; prints
//! one JSON object.
//!
//! Run by `cargo xtask bench`, which builds the worker and records the output.

mod api;
mod kills;
mod memory;
mod messages;
mod policy;
mod stall;
mod timed_songs;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use separation_testbed::{Kafka, KafkaOptions, S3Server, Site, WorkerOptions, eventually};

#[derive(Debug, Parser)]
struct Arguments {
    /// Worker binary to benchmark
    #[arg(long)]
    worker: PathBuf,
    /// Directory with the model `identity_tiny.onnx`, which takes almost no time
    #[arg(long)]
    models: PathBuf,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Small tasks while processors and uploaders are killed at random
    Kills {
        #[arg(long, default_value = "1000")]
        tasks: usize,
        #[arg(long, default_value = "80")]
        kills: usize,
        #[arg(long, default_value = "1")]
        seed: u64,
    },
    /// Time per message, compared with uvr5-api's processor
    Messages {
        #[arg(long, default_value = "200")]
        tasks: usize,
    },
    /// Memory of an idle processor
    Memory {
        /// Name of an installed model
        #[arg(long, default_value = "builtin")]
        model: String,
    },
    /// Uploads to one API process, and the time of reading a task meanwhile
    Api {
        #[arg(long, default_value = "1000")]
        uploads: usize,
        #[arg(long, default_value = "50")]
        at_once: usize,
    },
    /// Time that a killed worker's task is stalled
    Stall {
        #[arg(long, default_value = "3")]
        rounds: usize,
    },
    /// The scaling policy while the tasks of a trace arrive
    Policy(policy::PolicyArguments),
}

/// Resources of every scenario.
struct Bench {
    worker: PathBuf,
    models: PathBuf,
    kafka: Kafka,
    s3: S3Server,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bench = Bench {
        worker: arguments.worker,
        models: arguments.models,
        kafka: Kafka::start(KafkaOptions::default()).await?,
        s3: S3Server::start().await?,
    };
    let figures = match arguments.scenario {
        Scenario::Kills { tasks, kills, seed } => kills::measure(&bench, tasks, kills, seed).await?,
        Scenario::Messages { tasks } => messages::measure(&bench, tasks).await?,
        Scenario::Memory { model } => memory::measure(&bench, &model).await?,
        Scenario::Api { uploads, at_once } => api::measure(&bench, uploads, at_once).await?,
        Scenario::Stall { rounds } => stall::measure(&bench, rounds).await?,
        Scenario::Policy(arguments) => policy::measure(&bench, &arguments).await?,
    };
    // The result line; everything else goes to standard error.
    #[expect(clippy::print_stdout, reason = "a program whose output is the result")]
    {
        println!("{figures}");
    }
    Ok(())
}

impl Bench {
    async fn site(&self, partitions: i32) -> Result<Site<'_>> {
        Site::new(&self.kafka, &self.s3, partitions).await
    }

    /// Waits until the lag of a site's task topic is 0.
    async fn tasks_committed(&self, site: &Site<'_>, within: Duration) {
        eventually("all tasks committed", within, async || {
            let lag = self.kafka.total_lag(&site.processor_group, &site.task_topic);
            anyhow::Ok(lag.await? == 0)
        })
        .await;
    }

    /// Options of a worker role at a site, with a model that takes almost no time.
    fn role(&self, site: &Site<'_>, role: &str) -> WorkerOptions {
        site.worker(&self.worker.display().to_string(), role)
            .env("MODEL_FILE_DIR", &self.models)
            .env("MODEL_NAME", "identity_tiny.onnx")
            .env("THREADS", "1")
    }
}

/// Prints progress on standard error.
fn progress(text: &str) {
    #[expect(clippy::print_stderr, reason = "a program that reports progress of long runs")]
    {
        eprintln!("{text}");
    }
}
