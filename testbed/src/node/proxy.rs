//! Renders the settings of kube-proxy. Starts no process.

use std::path::Path;

use serde_json::{Value, json};

use super::MachineNetwork;

/// Services are nftables rules in the machine's own network.
pub(super) fn settings(network: MachineNetwork, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": network.name(),
        "clusterCIDR": network.pod_subnet(),
        "bindAddress": network.machine_address(),
        "oomScoreAdj": 0,
        // The size of the connection tracking table is a setting of the complete system.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        // Tests expect changes of services to apply immediately.
        "nftables": {"minSyncPeriod": "100ms"},
    })
}
