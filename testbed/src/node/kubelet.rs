//! The settings of kubelet. Starts nothing.

use std::path::Path;

use serde_json::{Value, json};

use super::{Place, runtime};

/// A file of addresses of name servers, for pods; there is none where it points, so that who asks is refused at once.
pub(super) fn name_servers(place: Place) -> String {
    format!("nameserver {}\n", place.host_address())
}

/// `group` is the control group under which pods get theirs; `ca` signs those who may ask for logs and run commands.
pub(super) fn settings(place: Place, group: &str, ca: &Path, name_servers: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.address(),
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": ca},
        },
        // Of those whom that authority signed, only the API server asks.
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{}", runtime::SOCKET),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        "enforceNodeAllocatable": ["pods"],
        // What developers' machines and CI's still have.
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "resolvConf": name_servers,
        // What pods ask by default: the same nobody.
        "clusterDNS": [place.host_address()],
        "clusterDomain": "cluster.local",
        "serializeImagePulls": false,
        // The disk is everybody's: pods are not to suffer for what others fill it with.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "100Mi", "imagefs.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
    })
}
