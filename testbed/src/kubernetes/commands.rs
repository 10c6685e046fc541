//! Command lines of the servers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::audit;
use super::identity::Identity;
use super::options::{ControlPlaneOptions, Server};
use crate::components::{ControlPlaneComponents, NodeComponents};
use crate::node::MachineNetwork;
use crate::{TempDirectory, ports};

/// The issuer of service accounts' tokens.
pub(super) const ISSUER: &str = "https://kubernetes.default.svc";

/// Listen addresses: loopback, except for the API server of a control plane with a node, which that node must
/// reach.
#[derive(Debug)]
pub(super) struct Ports {
    etcd: u16,
    etcd_peers: u16,
    api: SocketAddrV4,
}

impl Ports {
    pub(super) fn choose(network: Option<MachineNetwork>) -> Result<Self> {
        let address = network.map_or(Ipv4Addr::LOCALHOST, |network| network.host_address());
        Ok(Self {
            etcd: ports::free()?,
            etcd_peers: ports::free()?,
            api: SocketAddrV4::new(address, ports::free_at(address)?),
        })
    }

    /// URL of the API server.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.api)
    }

    fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd)
    }
}

pub(super) fn etcd(
    components: &ControlPlaneComponents,
    ports: &Ports,
    directory: &TempDirectory,
) -> Result<Command> {
    let peers = format!("http://127.0.0.1:{}", ports.etcd_peers);
    let mut etcd = Command::new(components.etcd()?);
    etcd.arg("--data-dir")
        .arg(directory.join("etcd"))
        .args(["--listen-client-urls", &ports.etcd_url()])
        .args(["--advertise-client-urls", &ports.etcd_url()])
        .args(["--listen-peer-urls", &peers])
        .args(["--initial-advertise-peer-urls", &peers])
        .args([
            "--name",
            "testbed",
            "--initial-cluster",
            &format!("testbed={peers}"),
        ])
        // Data of a killed process survives without fsync; only a power failure would lose it.
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    Ok(etcd)
}

pub(super) fn api_server(
    components: &ControlPlaneComponents,
    ports: &Ports,
    directory: &TempDirectory,
    identity: &Identity,
    options: &ControlPlaneOptions,
) -> Result<Command> {
    let mut server = Command::new(components.kubernetes(Server::Api.name())?);
    let mut set = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        server.arg(format!("--{name}")).arg(value);
    };
    set("etcd-servers", &ports.etcd_url());
    set("bind-address", &ports.api.ip().to_string());
    set("advertise-address", &ports.api.ip().to_string());
    set("secure-port", &ports.api.port().to_string());
    set("cert-dir", &directory.join("unused-certificates"));
    set("tls-cert-file", &identity.server_certificate());
    set("tls-private-key-file", &identity.server_key());
    set("token-auth-file", &identity.tokens());
    set("service-account-issuer", &ISSUER);
    set("service-account-key-file", &identity.account_public_key());
    set("service-account-signing-key-file", &identity.account_key());
    set("service-cluster-ip-range", &"10.96.0.0/16");
    set("audit-policy-file", &directory.join(audit::POLICY));
    set("audit-log-path", &directory.join(audit::LOG));
    match options.node {
        Some(_) => {
            set("authorization-mode", &"Node,RBAC");
            set("enable-admission-plugins", &"NodeRestriction");
            set("kubelet-preferred-address-types", &"InternalIP");
            set("kubelet-client-certificate", &identity.node_client_certificate());
            set("kubelet-client-key", &identity.node_client_key());
        }
        None => {
            set("authorization-mode", &"RBAC");
            // No client uses its Service, whose endpoint would need an address other than loopback.
            set("endpoint-reconciler-type", &"none");
        }
    }
    server
        .args(["--allow-privileged=true", "--profiling=false"])
        .args(&options.api_server);
    Ok(server)
}

pub(super) fn scheduler(kubeconfig: &Path) -> Result<Command> {
    let mut scheduler = Command::new(NodeComponents::locate()?.kube_scheduler);
    scheduler.arg("--kubeconfig").arg(kubeconfig).args([
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]);
    Ok(scheduler)
}

pub(super) fn controllers(
    components: &ControlPlaneComponents,
    kubeconfig: &Path,
    identity: &Identity,
) -> Result<Command> {
    let mut controllers = Command::new(components.kubernetes(Server::Controllers.name())?);
    controllers
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--service-account-private-key-file")
        .arg(identity.account_key())
        .arg("--root-ca-file")
        .arg(identity.ca())
        // Each controller has the rights and the audit log name that it has in a real cluster.
        .arg("--use-service-account-credentials=true")
        .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"]);
    Ok(controllers)
}
