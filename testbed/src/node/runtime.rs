//! The settings of containerd, and of the network that it gives to pods. Starts nothing.
//!
//! Where containerd keeps its files is what it does by default: the machine has those folders to itself.

use std::path::Path;

use serde_json::{Value, json};

use super::Place;
use crate::parts::NodeParts;

/// Where it listens.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where Debian has the network's plugins.
const PLUGINS: &str = "/usr/lib/cni";

pub(super) fn settings(parts: &NodeParts, network: &Path) -> String {
    let pause = &parts.pause_image.name;
    let runc = parts.runc.display();
    let network = network.display();
    format!(
        "version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.runtime']
# Not every system lets root take a process out of the reach of the killer of those that take too much memory.
restrict_oom_score_adj = true
# Its profile would stay in the kernel.
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

/// Pods hang on a bridge, whose address is their gateway; nothing is translated, for we know the way to them.
pub(super) fn network(place: Place) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            // A pod that asks a service may be given itself.
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": place.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}
