//! A real Kubernetes node: containerd, runc, kubelet and kube-proxy on its own [`Machine`], joined to a
//! [`ControlPlane`] that was created for it.
//!
//! Pods reach servers at [`MachineNetwork::host_address`] and the API server at 10.96.0.1; pods are reachable at their
//! addresses. Images are never pulled: [`Node::import`] imports them. There is no route out of this machine, and no name
//! server unless [`crate::Cluster::start_name_server`] starts one.

mod kubelet;
mod logs;
mod machine;
mod proxy;
mod runtime;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::{TcpStream, UnixStream};

pub use self::logs::ContainerLog;
pub use self::machine::{Machine, MachineNetwork};

use self::logs::LogCollector;
use crate::components::NodeComponents;
use crate::kubernetes::User;
use crate::service::Service;
use crate::{ControlPlane, Process};

/// Takes ten seconds on two idle cores; the machine may be busy.
const START: Duration = Duration::from_secs(120);
/// For an image of some hundred megabytes on a busy machine.
const IMPORT: Duration = Duration::from_secs(180);

/// The API server as seen by pods: the first address of the service network.
const API_SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 443);

const KUBELET_PORT: u16 = 10250;

const IMPORT_IMAGES: [&str; 2] = ["images", "import"];

/// A running node. It ends, with its pods and all its changes to this system, when this is dropped or our
/// process ends.
#[derive(Debug)]
pub struct Node {
    // Dropped first, because a kubelet killed with the machine would look like one that exited by itself.
    kubelet: Service,
    proxy: Service,
    runtime: Service,
    components: NodeComponents,
    logs: LogCollector,
    machine: Machine,
}

impl Node {
    /// Starts a node on a machine and waits until pods can run there and reach the API server.
    ///
    /// # Errors
    /// If a component is not installed, the control plane was not created for this machine, or the node is
    /// not ready within 120 s, with the end of a log.
    pub async fn start(machine: Machine, plane: &ControlPlane) -> Result<Self> {
        ensure!(
            plane.node_network() == Some(machine.network()),
            "this control plane was not created for {}; fix: set the machine's network in its options",
            machine.network().name()
        );
        let components = NodeComponents::locate()?;
        let node = Self {
            kubelet: kubelet_service(&components, &machine, plane)?,
            proxy: proxy_service(&components, &machine, plane)?,
            runtime: runtime_service(&components, &machine)?,
            components,
            logs: LogCollector::start(machine.directory())?,
            machine,
        };
        node.start_runtime().await?;
        for image in [&node.components.pause_image, &node.components.busybox_image] {
            node.import(&image.archive).await?;
        }
        node.kubelet.launch()?;
        node.proxy.launch()?;
        let name = node.name();
        node.wait("the node", &node.kubelet, async || {
            plane.node_is_ready(&name).await
        })
        .await?;
        node.wait("the route from pods to the API server", &node.proxy, async || {
            node.machine.reaches(API_SERVICE).await
        })
        .await?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.machine.network().name()
    }

    /// The machine that it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Address at which servers of this system listen for pods.
    pub fn host_address(&self) -> Ipv4Addr {
        self.machine.network().host_address()
    }

    /// The name of the built-in busybox image, whose entry point is its shell.
    pub fn busybox(&self) -> &str {
        &self.components.busybox_image.name
    }

    /// Imports the images of an archive (`docker save` or OCI), under their names in the archive.
    ///
    /// # Errors
    /// If containerd is not running or refuses.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.ctr(&IMPORT_IMAGES);
        ctr.arg(archive);
        self.run_ctr(ctr)
            .await
            .with_context(|| format!("cannot import {} into the node", archive.display()))
    }

    /// Imports the image of a server, `kafka` or `versitygw`, and returns its name.
    ///
    /// # Errors
    /// If it is missing, or as [`Self::import`].
    pub async fn import_server(&self, server: &str) -> Result<String> {
        let image = NodeComponents::server_image(server)?;
        self.import(&image.archive).await?;
        Ok(image.name)
    }

    /// The words of a command equivalent to [`Self::import`], for use by another process; the archive is the
    /// last argument.
    pub fn import_command(&self) -> Vec<String> {
        let ctr = self.ctr(&IMPORT_IMAGES);
        std::iter::once(ctr.get_program())
            .chain(ctr.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    async fn run_ctr(&self, ctr: Command) -> Result<()> {
        self.runtime.check()?;
        let log = self.log("ctr");
        let process = Process::start("ctr", &ctr, &log, &log)?;
        let code = process.wait_exit(IMPORT).await?;
        ensure!(code == 0, "ctr ended with {code}{}", process.log_end());
        Ok(())
    }

    /// A command of `ctr`, containerd's client, for the kubelet's images and containers.
    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut ctr = self.machine.command(&self.components.ctr);
        ctr.args(["--namespace", "k8s.io"]).args(arguments);
        ctr
    }

    /// Adds a name to an existing image.
    ///
    /// # Errors
    /// If there is no such image, or containerd is not running.
    pub async fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.run_ctr(self.ctr(&["images", "tag", image, name]))
            .await
            .with_context(|| format!("cannot name {image} {name} on the node"))
    }

    /// Kills a container with SIGKILL, like a crash; the kubelet restarts it.
    ///
    /// # Errors
    /// If there is no running container of this name.
    pub async fn kill_container(&self, container: &str) -> Result<()> {
        self.run_ctr(self.ctr(&["tasks", "kill", "--signal", "SIGKILL", container]))
            .await
            .with_context(|| format!("cannot kill the container {container}"))
    }

    /// Logs of the containers of all pods so far, including deleted pods.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn container_logs(&self) -> Result<Vec<ContainerLog>> {
        self.logs.read()
    }

    /// Kills the kubelet with SIGKILL; pods keep running.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill_kubelet(&self) -> Result<()> {
        self.kubelet.kill().await
    }

    /// Restarts a killed kubelet and waits until it serves logs; the node may need a moment longer to be
    /// ready.
    ///
    /// # Errors
    /// If it is already running, or does not serve within 120 s.
    pub async fn start_kubelet(&self) -> Result<()> {
        self.kubelet.launch()?;
        let address = SocketAddrV4::new(self.machine.network().machine_address(), KUBELET_PORT);
        self.wait("kubelet", &self.kubelet, async || {
            Ok(TcpStream::connect(address).await.is_ok())
        })
        .await
    }

    /// Kills containerd with SIGKILL and restarts it; containers keep running.
    ///
    /// # Errors
    /// If it is not running, or does not listen within 120 s.
    pub async fn restart_runtime(&self) -> Result<()> {
        self.runtime.kill().await?;
        self.start_runtime().await
    }

    /// The ends of all logs, for a message.
    pub fn log_ends(&self) -> String {
        [&self.runtime, &self.kubelet, &self.proxy]
            .map(Service::log_end)
            .concat()
    }

    async fn start_runtime(&self) -> Result<()> {
        self.runtime.launch()?;
        let socket = self.machine.path(runtime::SOCKET);
        self.wait("containerd", &self.runtime, async || {
            Ok(UnixStream::connect(&socket).await.is_ok())
        })
        .await
    }

    /// Waits until `condition` returns true; fails if the server exits or time is up.
    async fn wait(
        &self,
        what: &str,
        server: &Service,
        mut holds: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            for server in [&self.runtime, &self.kubelet, &self.proxy] {
                server.check()?;
            }
            let reason = match holds().await {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if Instant::now() >= deadline {
                bail!("{what} is not ready after {START:?}{reason}{}", server.log_end());
            }
            tokio::time::sleep(crate::eventually::POLL).await;
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        log(&self.machine, name)
    }
}

fn runtime_service(components: &NodeComponents, machine: &Machine) -> Result<Service> {
    let directory = machine.directory();
    let network = directory.subdirectory("network")?;
    write(
        &network.join("10-pods.conflist"),
        &runtime::cni_config(machine.network()).to_string(),
    )?;
    let settings = directory.join("containerd.toml");
    write(&settings, &runtime::settings(components, &network))?;
    let mut command = machine.command(&components.containerd);
    command
        .arg("--config")
        .arg(settings)
        // It searches for its shim there first.
        .env("PATH", path_with(&components.containerd)?);
    Ok(service("containerd", command, machine))
}

fn kubelet_service(components: &NodeComponents, machine: &Machine, plane: &ControlPlane) -> Result<Service> {
    let (directory, network) = (machine.directory(), machine.network());
    let kubeconfig = directory.join("kubelet.kubeconfig");
    write(&kubeconfig, &plane.kubeconfig_of(User::Node))?;
    let name_servers = directory.join("resolv.conf");
    write(&name_servers, &kubelet::name_servers(network))?;
    let settings = directory.join("kubelet.json");
    let text = kubelet::settings(network, &machine.group(), &plane.ca_file(), &name_servers);
    write(&settings, &text.to_string())?;
    let mut command = machine.command(&components.kubelet);
    command
        .arg("--config")
        .arg(settings)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--hostname-override", &network.name()])
        .args(["--node-ip", &network.machine_address().to_string()]);
    Ok(service("kubelet", command, machine))
}

fn proxy_service(components: &NodeComponents, machine: &Machine, plane: &ControlPlane) -> Result<Service> {
    let directory = machine.directory();
    let kubeconfig = directory.join("kube-proxy.kubeconfig");
    write(&kubeconfig, &plane.kubeconfig_of(User::Proxy))?;
    let settings = directory.join("kube-proxy.json");
    let text = proxy::settings(machine.network(), &kubeconfig);
    write(&settings, &text.to_string())?;
    let mut command = machine.command(&components.kube_proxy);
    command.arg("--config").arg(settings);
    Ok(service("kube-proxy", command, machine))
}

/// The search path, with a program's directory first.
fn path_with(program: &Path) -> Result<OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let directories = program
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(std::env::split_paths(&inherited));
    std::env::join_paths(directories).context("a directory of the search path has a colon in its name")
}

fn service(name: &'static str, command: Command, machine: &Machine) -> Service {
    Service::new(name, command, log(machine, name))
}

fn log(machine: &Machine, name: &str) -> PathBuf {
    machine.directory().join(format!("{name}.log"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
