//! A cluster with the operator on it, installed by its chart, and a receiver of webhooks that pods reach.

use anyhow::{Context, Result};
use separation_testbed::{Cluster, ClusterOptions, Receiver, Release};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::{IMAGES, images};

/// As `cargo xtask` names what it builds for tests.
const TAG: &str = "dev";

/// What the operator's replicas share.
const LEASE: &str = "separation-operator";

/// All of it ends with this.
#[derive(Debug)]
pub struct System {
    /// The cluster, with Kafka and S3.
    pub cluster: Cluster,
    /// What the chart is installed as.
    pub release: Release,
    /// Where pools' webhooks go.
    pub hooks: Receiver,
    // Last, for the next may begin when all else has ended.
    _turn: MutexGuard<'static, ()>,
}

impl System {
    /// Starts a cluster, brings the images and installs the chart, when the scenarios before have ended.
    ///
    /// # Errors
    /// When something is not installed or does not start.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let system = Self::without_release(options).await?;
        system.release.install(&system.cluster, &Self::values()).await?;
        Ok(system)
    }

    /// The same, with nothing installed.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn without_release(options: ClusterOptions) -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let images = images().with_context(|| format!("{IMAGES} names no folder of images"))?;
        let cluster = Cluster::start(options).await?;
        for program in ["worker", "operator"] {
            let archive = images.join(format!("separation-{program}.tar"));
            cluster.node.import(&archive).await?;
        }
        Ok(Self {
            hooks: Receiver::start_at(cluster.node.host_address()).await?,
            release: Release::default(),
            cluster,
            _turn: turn,
        })
    }

    /// Who of the operator's replicas leads now: its identity, which begins with its pod's name and differs from start to
    /// start.
    ///
    /// # Errors
    /// When the API server does not answer, or nobody ever led.
    pub async fn leader(&self) -> Result<String> {
        let namespace = &self.release.namespace;
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}");
        let lease = self.cluster.get(&path).await?;
        let holder = lease["spec"]["holderIdentity"].as_str();
        Ok(holder.context("nobody ever led")?.to_owned())
    }

    /// The chart's values for the images that were brought; pools may show folders of the node to their workers.
    pub fn values() -> Value {
        json!({
            "image": {"repository": "localhost/separation-operator", "tag": TAG},
            "worker": {
                "image": {"repository": "localhost/separation-worker", "tag": TAG},
                "allowInOverrides": ["host-path"],
            },
        })
    }
}
