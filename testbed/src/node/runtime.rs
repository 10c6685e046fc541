//! Renders the settings of containerd and of the pod network. Starts no process.
//!
//! containerd uses its default directories, which are private to the machine.

use std::path::Path;

use serde_json::{Value, json};

use super::MachineNetwork;
use crate::components::NodeComponents;

/// containerd's socket.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// Directory of CNI plugins in Debian.
const PLUGINS: &str = "/usr/lib/cni";

pub(super) fn settings(components: &NodeComponents, network: &Path) -> String {
    let pause = &components.pause_image.name;
    let runc = components.runc.display();
    let network = network.display();
    format!(
        "version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.runtime']
# Not every system lets root lower the OOM score of a process.
restrict_oom_score_adj = true
# Its profile would remain in the kernel.
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{PLUGINS}']
conf_dir = '{network}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{runc}'
"
    )
}

/// Pods are attached to a bridge, whose address is their gateway; no NAT is needed, because we have a route
/// to them.
pub(super) fn cni_config(network: MachineNetwork) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            // A service may route a pod's request to the pod itself.
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": network.pod_subnet()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}
