//! A complete cluster on one machine: a control plane, a node, and Kafka and S3 at addresses that pods can
//! reach.

mod events;
mod kubectl;
mod name_server;
mod pods;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

pub use self::events::Event;
pub use self::name_server::NameServer;
pub use self::pods::{ContainerExit, Pod, PodHistory};

use crate::{ControlPlane, ControlPlaneOptions, Kafka, KafkaOptions, Machine, Node, S3Server, Sts};

/// Settings of a cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Settings of the brokers; the cluster chooses their address.
    pub kafka: KafkaOptions,
    /// Run [`Cluster::sts`].
    pub sts: bool,
    /// Further arguments of kube-apiserver.
    pub api_server: Vec<String>,
}

/// A running cluster. It stops when this is dropped or our process ends.
#[derive(Debug)]
pub struct Cluster {
    /// The one node.
    pub node: Node,
    /// Kafka, reachable from pods.
    pub kafka: Kafka,
    /// S3, reachable from pods.
    pub s3: S3Server,
    /// Exchanges tokens of service accounts for credentials of [`Self::s3`], if [`ClusterOptions::sts`] asks for it.
    pub sts: Option<Sts>,
    /// The control plane, with all controllers and the scheduler.
    pub plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Starts a cluster and waits until pods can run.
    ///
    /// # Errors
    /// If a component is not installed or does not start, with the end of its log.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let machine = Machine::start().await?;
        let network = machine.network();
        let plane = ControlPlaneOptions {
            api_server: options.api_server,
            node: Some(network),
            ..ControlPlaneOptions::default()
        };
        let kafka = KafkaOptions {
            address: network.host_address(),
            ..options.kafka
        };
        let node = async {
            let plane = ControlPlane::start(plane).await?;
            let node = Node::start(machine, &plane).await?;
            anyhow::Ok((node, plane))
        };
        let sts = match options.sts {
            true => Some(Sts::start_at(network.host_address()).await?),
            false => None,
        };
        let s3 = async {
            match &sts {
                Some(sts) => S3Server::start_trusting(network.host_address(), sts).await,
                None => S3Server::start_at(network.host_address()).await,
            }
        };
        let (nodes, kafka, s3) = tokio::join!(node, Kafka::start(kafka), s3);
        let (node, plane) = nodes?;
        if let Some(sts) = &sts {
            sts.set_jwks(&plane.jwks().await?)?;
        }
        let kubeconfig = plane.directory().join("admin.kubeconfig");
        std::fs::write(&kubeconfig, plane.kubeconfig(plane.admin_token()))
            .context("cannot write a kubeconfig")?;
        Ok(Self {
            node,
            kafka: kafka?,
            s3: s3?,
            sts,
            plane,
            kubeconfig,
        })
    }

    /// A kubeconfig with all rights.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The object at an API path; null if there is none.
    ///
    /// # Errors
    /// If the API server does not respond, or refuses.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.plane
            .client()
            .get(path)
            .await
            .with_context(|| format!("cannot read {path}"))
    }

    /// All existing pods of a namespace.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn pods(&self, namespace: &str) -> Result<Vec<Pod>> {
        let listed = self.get(&pods::path(namespace)).await?;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().map(Pod::new).collect())
    }

    /// Records the states of a namespace's pods from now on, including deleted ones.
    pub fn watch_pods(&self, namespace: &str) -> PodHistory {
        PodHistory::start(self.plane.client().clone(), namespace)
    }

    /// Events of a namespace, at most an hour old.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn events(&self, namespace: &str) -> Result<Vec<Event>> {
        let listed = self
            .get(&format!("/api/v1/namespaces/{namespace}/events"))
            .await?;
        let items = listed["items"].as_array();
        Ok(items.into_iter().flatten().map(Event::read).collect())
    }
}
