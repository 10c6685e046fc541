//! All of a cluster on one machine: a control plane, a node, and beside them Kafka and S3 where pods reach them.

use anyhow::Result;

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
        Ok(Self {
            node,
            kafka: kafka?,
            s3: s3?,
            plane,
        })
    }
}
