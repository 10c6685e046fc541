//! Settings and servers of a control plane.

use crate::node::MachineNetwork;

/// Settings of a control plane.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    /// Run kube-controller-manager: namespaces get their `default` service account, without which no Pod is
    /// admitted, and Deployments, owners and namespaces work as in a cluster.
    pub controllers: bool,
    /// Further arguments of kube-apiserver.
    pub api_server: Vec<String>,
    /// For a [`crate::Node`] on the machine with this network: also run kube-scheduler, and let the API server
    /// listen at [`MachineNetwork::host_address`] instead of loopback.
    pub node: Option<MachineNetwork>,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            controllers: true,
            api_server: Vec::new(),
            node: None,
        }
    }
}

/// A server of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The database.
    Etcd,
    /// The API server.
    Api,
    /// The controllers.
    Controllers,
    /// The scheduler, only of a control plane with a node.
    Scheduler,
}

impl Server {
    /// Name of the program.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Api => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}
