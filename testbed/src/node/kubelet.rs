//! Renders the settings of the kubelet. Starts no process.

use std::path::Path;

use serde_json::{Value, json};

use super::{MachineNetwork, runtime};

/// The pods' resolv.conf. Unless a test starts a name server at this address, lookups fail immediately.
pub(super) fn name_servers(network: MachineNetwork) -> String {
    format!("nameserver {}\n", network.host_address())
}

/// `group` is the parent control group of the pods; `ca` signs the client certificates for logs and exec.
pub(super) fn settings(network: MachineNetwork, group: &str, ca: &Path, name_servers: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.machine_address(),
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": ca},
        },
        // The API server is the only client with a certificate of that authority.
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{}", runtime::SOCKET),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        "enforceNodeAllocatable": ["pods"],
        // Control groups v1, still used on developers' machines and in CI.
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "resolvConf": name_servers,
        // The default name server of pods: the same.
        "clusterDNS": [network.host_address()],
        "clusterDomain": "cluster.local",
        "serializeImagePulls": false,
        // The disk is shared with other programs: pods must not be evicted because of them.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "100Mi", "imagefs.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
    })
}
