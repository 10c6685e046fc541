//! Holds a cluster, Kafka and S3 until it gets SIGTERM or SIGINT: what `cargo xtask cluster up` starts in the background.
//!
//! When all is up it writes `cluster.json` into its folder, which says how to reach everything.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use separation_contract::names;
use separation_testbed::{Cluster, ClusterOptions, Kafka, KafkaOptions, S3Server};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// What the samples in `deploy/` expect to be there.
const BUCKET: &str = "stems";
const PARTITIONS: i32 = 12;

#[derive(Debug, Parser)]
struct Arguments {
    /// Folder for `cluster.json` and the kubeconfig; it must be there
    #[arg(long)]
    folder: PathBuf,
    /// Start no cluster of our own, but only Kafka and S3, at this address of this machine
    #[arg(long)]
    only_services_at: Option<Ipv4Addr>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // From the start, so that who gives up while we start has us tidy up.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = hold(&arguments) => ended,
    }
}

/// Starts everything, and ends only when that fails.
async fn hold(arguments: &Arguments) -> Result<()> {
    let Some(address) = arguments.only_services_at else {
        let cluster = Cluster::start(ClusterOptions::default()).await?;
        let kubeconfig = arguments.folder.join("kubeconfig");
        std::fs::copy(cluster.kubeconfig(), &kubeconfig).context("cannot write the kubeconfig")?;
        let of_cluster = json!({
            "kubeconfig": kubeconfig,
            "import": cluster.node.import_command(),
        });
        return serve(&arguments.folder, of_cluster, &cluster.kafka, &cluster.s3).await;
    };
    let options = KafkaOptions {
        address,
        ..KafkaOptions::default()
    };
    let (kafka, s3) = tokio::join!(Kafka::start(options), S3Server::start_at(address));
    serve(&arguments.folder, json!({}), &kafka?, &s3?).await
}

/// Makes topics and a bucket, says that all is up, and never ends.
async fn serve(folder: &Path, of_cluster: Value, kafka: &Kafka, s3: &S3Server) -> Result<()> {
    for topic in [names::TASK_TOPIC, names::RESULT_TOPIC] {
        kafka.create_topic(topic, PARTITIONS).await?;
        kafka.create_topic(&names::dead_letter_topic(topic), 1).await?;
    }
    s3.create_bucket(BUCKET).await?;
    s3.let_everybody_read(BUCKET).await?;
    let mut said = json!({
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
    for (name, value) in of_cluster.as_object().into_iter().flatten() {
        said[name] = value.clone();
    }
    let path = folder.join("cluster.json");
    let writing = folder.join("cluster.json.new");
    std::fs::write(&writing, said.to_string())
        .and_then(|()| std::fs::rename(&writing, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    std::future::pending().await
}
