//! How each server is started.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::identity::Identity;
use super::{ControlPlaneOptions, Server, audit};
use crate::node::Place;
use crate::parts::{ControlPlaneParts, NodeParts};
use crate::{Folder, ports};

/// Where servers listen: on loopback, but the API server of a control plane with a node where that node reaches it.
#[derive(Debug)]
pub(super) struct Ports {
    etcd: u16,
    etcd_peers: u16,
    api: SocketAddrV4,
}

impl Ports {
    pub(super) fn choose(place: Option<Place>) -> Result<Self> {
        let address = place.map_or(Ipv4Addr::LOCALHOST, |place| place.host_address());
        Ok(Self {
            etcd: ports::free()?,
            etcd_peers: ports::free()?,
            api: SocketAddrV4::new(address, ports::free_at(address)?),
        })
    }

    /// Of the API server.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.api)
    }

    fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd)
    }
}

pub(super) fn etcd(parts: &ControlPlaneParts, ports: &Ports, folder: &Folder) -> Result<Command> {
    let peers = format!("http://127.0.0.1:{}", ports.etcd_peers);
    let mut etcd = Command::new(parts.etcd()?);
    etcd.arg("--data-dir")
        .arg(folder.join("etcd"))
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
        // What a killed process wrote is there for the next one; only a machine that loses power would miss it.
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    Ok(etcd)
}

pub(super) fn api_server(
    parts: &ControlPlaneParts,
    ports: &Ports,
    folder: &Folder,
    identity: &Identity,
    options: &ControlPlaneOptions,
) -> Result<Command> {
    let mut server = Command::new(parts.kubernetes(Server::Api.name())?);
    let mut set = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        server.arg(format!("--{name}")).arg(value);
    };
    set("etcd-servers", &ports.etcd_url());
    set("bind-address", &ports.api.ip().to_string());
    set("advertise-address", &ports.api.ip().to_string());
    set("secure-port", &ports.api.port().to_string());
    set("cert-dir", &folder.join("unused-certificates"));
    set("tls-cert-file", &identity.server_certificate());
    set("tls-private-key-file", &identity.server_key());
    set("token-auth-file", &identity.tokens());
    set("service-account-issuer", &"https://kubernetes.default.svc");
    set("service-account-key-file", &identity.account_public_key());
    set("service-account-signing-key-file", &identity.account_key());
    set("service-cluster-ip-range", &"10.96.0.0/16");
    set("audit-policy-file", &folder.join(audit::POLICY));
    set("audit-log-path", &folder.join(audit::LOG));
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
            // Nothing reaches it by its Service, whose endpoint would have to be another address than loopback.
            set("endpoint-reconciler-type", &"none");
        }
    }
    server
        .args(["--allow-privileged=true", "--profiling=false"])
        .args(&options.api_server);
    Ok(server)
}

pub(super) fn scheduler(kubeconfig: &Path) -> Result<Command> {
    let mut scheduler = Command::new(NodeParts::locate()?.kube_scheduler);
    scheduler.arg("--kubeconfig").arg(kubeconfig).args([
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]);
    Ok(scheduler)
}

pub(super) fn controllers(
    parts: &ControlPlaneParts,
    kubeconfig: &Path,
    identity: &Identity,
) -> Result<Command> {
    let mut controllers = Command::new(parts.kubernetes(Server::Controllers.name())?);
    controllers
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--service-account-private-key-file")
        .arg(identity.account_key())
        .arg("--root-ca-file")
        .arg(identity.ca())
        // Each controller with the rights that it has in a cluster, and known by its name in the audit log.
        .arg("--use-service-account-credentials=true")
        .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"]);
    Ok(controllers)
}
