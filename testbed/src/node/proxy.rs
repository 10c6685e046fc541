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
        "nftables": {
            // Pods are ports of one bridge. Without br_netfilter, a pod's response to another pod would stay on the bridge
            // and have the pod's address in place of the service's.
            "masqueradeAll": true,
            // Tests expect changes of services to apply immediately.
            "minSyncPeriod": "100ms",
        },
    })
}
