//! Runs a cluster, Kafka and S3 until SIGTERM or SIGINT. `cargo xtask cluster up` starts it in the
//! background.
//!
//! Once everything is up, it writes the addresses to `cluster.json` in its directory.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use separation_contract::names;
use separation_testbed::{Cluster, ClusterOptions, Kafka, KafkaOptions, S3Server};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// The bucket of the samples in `deploy/`.
const BUCKET: &str = "stems";
const PARTITIONS: i32 = 12;

#[derive(Debug, Parser)]
struct Arguments {
    /// Directory for `cluster.json` and the kubeconfig; it must exist
    #[arg(long)]
    directory: PathBuf,
    /// Start only Kafka and S3, at this address of this machine, and no cluster
    #[arg(long)]
    only_services_at: Option<Ipv4Addr>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Registered first, so that a signal during the start also cleans up.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = hold(&arguments) => ended,
    }
}

/// Starts everything; returns only if that fails.
async fn hold(arguments: &Arguments) -> Result<()> {
    let Some(address) = arguments.only_services_at else {
        let cluster = Cluster::start(ClusterOptions::default()).await?;
        let kubeconfig = arguments.directory.join("kubeconfig");
        std::fs::copy(cluster.kubeconfig(), &kubeconfig).context("cannot write the kubeconfig")?;
        let cluster_fields = json!({
            "kubeconfig": kubeconfig,
            "import": cluster.node.import_command(),
        });
        return serve(&arguments.directory, cluster_fields, &cluster.kafka, &cluster.s3).await;
    };
    let options = KafkaOptions {
        address,
        ..KafkaOptions::default()
    };
    let (kafka, s3) = tokio::join!(Kafka::start(options), S3Server::start_at(address));
    serve(&arguments.directory, json!({}), &kafka?, &s3?).await
}

/// Creates topics and a bucket, reports readiness, and never returns.
async fn serve(directory: &Path, cluster_fields: Value, kafka: &Kafka, s3: &S3Server) -> Result<()> {
    for topic in [names::TASK_TOPIC, names::RESULT_TOPIC] {
        kafka.create_topic(topic, PARTITIONS).await?;
        kafka.create_topic(&names::dead_letter_topic(topic), 1).await?;
    }
    s3.create_bucket(BUCKET).await?;
    s3.make_public(BUCKET).await?;
    let mut state = json!({
        "pid": std::process::id(),
        "kafka": kafka.bootstrap(),
        "s3": {
            "endpoint": s3.endpoint(),
            "region": s3.region(),
            "bucket": BUCKET,
            "accessKey": s3.access_key(),
            "secretKey": s3.secret_key(),
        },
        "kubeconfig": null,
        "import": [],
    });
    for (name, value) in cluster_fields.as_object().into_iter().flatten() {
        state[name] = value.clone();
    }
    let path = directory.join("cluster.json");
    let writing = directory.join("cluster.json.new");
    std::fs::write(&writing, state.to_string())
        .and_then(|()| std::fs::rename(&writing, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    std::future::pending().await
}
