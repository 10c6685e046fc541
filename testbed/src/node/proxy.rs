//! The settings of kube-proxy. Starts nothing.

use std::path::Path;

use serde_json::{Value, json};

use super::Place;

/// Services are rules of nftables, all of them in the machine's own network.
pub(super) fn settings(place: Place, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": place.name(),
        "clusterCIDR": place.pods(),
        "bindAddress": place.address(),
        "oomScoreAdj": 0,
        // The size of the table of connections is the whole system's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        // Tests change services and look at once.
        "nftables": {"minSyncPeriod": "100ms"},
    })
}
