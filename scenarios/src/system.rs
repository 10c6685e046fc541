//! A cluster with the operator installed by its chart, and a webhook receiver that pods can reach.

use std::path::PathBuf;

use anyhow::{Context, Result};
use separation_testbed::{Cluster, ClusterOptions, Receiver, Release};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::{IMAGES, images};

/// Image tag of `cargo xtask`'s test builds.
const TAG: &str = "dev";

/// The lease of the operator's replicas.
const LEASE: &str = "separation-operator";

/// A running system; dropping it stops everything.
#[derive(Debug)]
pub struct System {
    /// The cluster, with Kafka and S3.
    pub cluster: Cluster,
    /// The release of the operator's chart.
    pub release: Release,
    /// Receiver of the pools' webhooks.
    pub hooks: Receiver,
    images: PathBuf,
    // Dropped last: the next scenario may start only after everything else has stopped.
    _turn: MutexGuard<'static, ()>,
}

impl System {
    /// Starts a cluster, imports the images and installs the chart, after earlier scenarios have ended.
    ///
    /// # Errors
    /// If a component is not installed or does not start.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let system = Self::without_release(options).await?;
        system.release.install(&system.cluster, &Self::values()).await?;
        Ok(system)
    }

    /// The same without the chart.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn without_release(options: ClusterOptions) -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let images = images().with_context(|| format!("{IMAGES} is not set to a directory of images"))?;
        let cluster = Cluster::start(options).await?;
        let system = Self {
            hooks: Receiver::start_at(cluster.node.host_address()).await?,
            release: Release::default(),
            cluster,
            images,
            _turn: turn,
        };
        for program in ["worker", "operator"] {
            system.import(program).await?;
        }
        Ok(system)
    }

    /// Imports one of our images, and returns its name.
    ///
    /// # Errors
    /// If it was not built, or the node refuses.
    pub async fn import(&self, program: &str) -> Result<String> {
        let archive = self.images.join(format!("separation-{program}.tar"));
        self.cluster.node.import(&archive).await?;
        Ok(Self::image(program))
    }

    /// The name of one of our images on the node.
    pub fn image(program: &str) -> String {
        format!("localhost/separation-{program}:{TAG}")
    }

    /// The identity of the operator's current leader. It begins with the pod's name and differs after each
    /// restart.
    ///
    /// # Errors
    /// If the API server does not respond, or no leader was ever elected.
    pub async fn leader(&self) -> Result<String> {
        let namespace = &self.release.namespace;
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}");
        let lease = self.cluster.get(&path).await?;
        let holder = lease["spec"]["holderIdentity"].as_str();
        Ok(holder.context("no leader was ever elected")?.to_owned())
    }

    /// Chart values for the imported images; pools may mount host paths into their workers.
    pub fn values() -> Value {
        json!({
            "image": {"repository": "localhost/separation-operator", "tag": TAG},
            "worker": {
                "image": {"repository": "localhost/separation-worker", "tag": TAG},
                "allowInPodTemplate": ["host-path"],
            },
        })
    }
}
