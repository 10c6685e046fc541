//! All of a cluster on one machine: a control plane, a node, and beside them Kafka and S3 where pods reach them.

mod events;
mod kubectl;
mod pods;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

pub use self::events::Event;
pub use self::pods::{Ended, Pod, PodHistory};

use crate::{ControlPlane, ControlPlaneOptions, Kafka, KafkaOptions, Machine, Node, S3Server};

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// How brokers are to be; their address is chosen by the cluster.
    pub kafka: KafkaOptions,
    /// Further arguments of kube-apiserver.
    pub api_server: Vec<String>,
}

/// A running cluster. All of it ends with this or with our process.
#[derive(Debug)]
pub struct Cluster {
    /// The one node.
    pub node: Node,
    /// Where pods reach it.
    pub kafka: Kafka,
    /// Where pods reach it.
    pub s3: S3Server,
    /// With all controllers and the scheduler.
    pub plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Starts one and waits until pods can run.
    ///
    /// # Errors
    /// When a part is not installed, or does not start, with the end of its log.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let machine = Machine::start().await?;
        let place = machine.place();
        let plane = ControlPlaneOptions {
            api_server: options.api_server,
            node: Some(place),
            ..ControlPlaneOptions::default()
        };
        let kafka = KafkaOptions {
            address: place.host_address(),
            ..options.kafka
        };
        let node = async {
            let plane = ControlPlane::start(plane).await?;
            let node = Node::start(machine, &plane).await?;
            anyhow::Ok((node, plane))
        };
        let (nodes, kafka, s3) = tokio::join!(
            node,
            Kafka::start(kafka),
            S3Server::start_at(place.host_address())
        );
        let (node, plane) = nodes?;
        let kubeconfig = plane.folder().join("admin.kubeconfig");
        std::fs::write(&kubeconfig, plane.kubeconfig(plane.admin_token()))
            .context("cannot write a kubeconfig")?;
        Ok(Self {
            node,
            kafka: kafka?,
            s3: s3?,
            plane,
            kubeconfig,
        })
    }

    /// Of somebody who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What the API server has at a path; null where there is nothing.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.plane
            .client()
            .get(path)
            .await
            .with_context(|| format!("cannot read {path}"))
    }

    /// All pods of a namespace that are there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, namespace: &str) -> Result<Vec<Pod>> {
        let listed = self.get(&pods::path(namespace)).await?;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().map(Pod::new).collect())
    }

    /// Records from now on what becomes of the pods of a namespace, also of those that are removed.
    pub fn watch_pods(&self, namespace: &str) -> PodHistory {
        PodHistory::start(self.plane.client().clone(), namespace)
    }

    /// What was said of the objects of a namespace, an hour back at most.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn events(&self, namespace: &str) -> Result<Vec<Event>> {
        let listed = self
            .get(&format!("/api/v1/namespaces/{namespace}/events"))
            .await?;
        let items = listed["items"].as_array();
        Ok(items.into_iter().flatten().map(Event::read).collect())
    }
}
