//! A real Kubernetes node: containerd, runc, kubelet and kube-proxy on a [`Machine`] of its own, joined to a
//! [`ControlPlane`] that was made for it.
//!
//! Pods reach what listens on [`Place::host_address`] and the API server as 10.96.0.1; we reach pods by their
//! addresses. No image is fetched: [`Node::import`] brings them. There is no name server and no way out of this machine.

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
pub use self::machine::{Machine, Place};

use self::logs::KeptLogs;
use crate::kubernetes::User;
use crate::parts::NodeParts;
use crate::service::Service;
use crate::{ControlPlane, Process};

/// Alone on two cores it takes ten seconds; others may be building.
const START: Duration = Duration::from_secs(120);
/// For an image of some hundred megabytes while others build.
const IMPORT: Duration = Duration::from_secs(180);

/// The API server as pods see it: the first address of the services' network.
const API_SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 443);

const KUBELET_PORT: u16 = 10250;

const IMPORT_IMAGES: [&str; 2] = ["images", "import"];

/// A running node. Its pods, and all else that it made on this system, end with this or with our process.
#[derive(Debug)]
pub struct Node {
    // First, for what is killed with the machine would look like it ended by itself.
    kubelet: Service,
    proxy: Service,
    runtime: Service,
    parts: NodeParts,
    logs: KeptLogs,
    machine: Machine,
}

impl Node {
    /// Starts one on a machine and waits until pods can run there and reach the API server.
    ///
    /// # Errors
    /// When a part is not installed, the control plane was not made for this machine, or the node is not ready within
    /// 120 s, with the end of a log.
    pub async fn start(machine: Machine, plane: &ControlPlane) -> Result<Self> {
        ensure!(
            plane.place() == Some(machine.place()),
            "this control plane was not made for {}; fix: name the machine's place in its options",
            machine.place().name()
        );
        let parts = NodeParts::locate()?;
        let node = Self {
            kubelet: kubelet_service(&parts, &machine, plane)?,
            proxy: proxy_service(&parts, &machine, plane)?,
            runtime: runtime_service(&parts, &machine)?,
            parts,
            logs: KeptLogs::start(machine.folder())?,
            machine,
        };
        node.start_runtime().await?;
        for image in [&node.parts.pause_image, &node.parts.busybox_image] {
            node.import(&image.archive).await?;
        }
        node.kubelet.launch()?;
        node.proxy.launch()?;
        let name = node.name();
        node.wait("the node", &node.kubelet, async || {
            plane.node_is_ready(&name).await
        })
        .await?;
        node.wait("the way from pods to the API server", &node.proxy, async || {
            node.machine.reaches(API_SERVICE).await
        })
        .await?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.machine.place().name()
    }

    /// What it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where servers of this system listen for pods.
    pub fn host_address(&self) -> Ipv4Addr {
        self.machine.place().host_address()
    }

    /// The name of an image that it always has: busybox, whose entry point is its shell.
    pub fn busybox(&self) -> &str {
        &self.parts.busybox_image.name
    }

    /// Brings the images of an archive (`docker save` or OCI) to the node, under the names that the archive has.
    ///
    /// # Errors
    /// When containerd does not run or refuses.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.ctr(&IMPORT_IMAGES);
        ctr.arg(archive);
        self.run_ctr(ctr)
            .await
            .with_context(|| format!("cannot bring {} to the node", archive.display()))
    }

    /// The words of a command that does the same as [`Self::import`], for another process; the archive comes last.
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

    /// containerd's own client, for what kubelet has there.
    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut ctr = self.machine.command(&self.parts.ctr);
        ctr.args(["--namespace", "k8s.io"]).args(arguments);
        ctr
    }

    /// Gives an image that is there another name.
    ///
    /// # Errors
    /// When there is no such image, or containerd does not run.
    pub async fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.run_ctr(self.ctr(&["images", "tag", image, name]))
            .await
            .with_context(|| format!("cannot name {image} {name} on the node"))
    }

    /// Kills a container with SIGKILL, as a crash would; kubelet starts it again.
    ///
    /// # Errors
    /// When there is none of this name, or it does not run.
    pub async fn kill_container(&self, container: &str) -> Result<()> {
        self.run_ctr(self.ctr(&["tasks", "kill", "--signal", "SIGKILL", container]))
            .await
            .with_context(|| format!("cannot kill the container {container}"))
    }

    /// What the containers of all pods printed so far, also of those that are gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn container_logs(&self) -> Result<Vec<ContainerLog>> {
        self.logs.read()
    }

    /// Kills kubelet with SIGKILL; pods go on.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_kubelet(&self) -> Result<()> {
        self.kubelet.kill().await
    }

    /// Starts a killed kubelet again and waits until it serves logs; the node may take a moment more to be ready.
    ///
    /// # Errors
    /// When it runs already, or does not serve within 120 s.
    pub async fn start_kubelet(&self) -> Result<()> {
        self.kubelet.launch()?;
        let address = SocketAddrV4::new(self.machine.place().address(), KUBELET_PORT);
        self.wait("kubelet", &self.kubelet, async || {
            Ok(TcpStream::connect(address).await.is_ok())
        })
        .await
    }

    /// Kills containerd with SIGKILL and starts it again; containers go on.
    ///
    /// # Errors
    /// When it does not run, or does not listen within 120 s.
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

    /// Waits until an answer is yes, or a server ends, or time is up.
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

fn runtime_service(parts: &NodeParts, machine: &Machine) -> Result<Service> {
    let folder = machine.folder();
    let network = folder.subfolder("network")?;
    write(
        &network.join("10-pods.conflist"),
        &runtime::network(machine.place()).to_string(),
    )?;
    let settings = folder.join("containerd.toml");
    write(&settings, &runtime::settings(parts, &network))?;
    let mut command = machine.command(&parts.containerd);
    command
        .arg("--config")
        .arg(settings)
        // Where it looks for its shim first.
        .env("PATH", path_with(&parts.containerd)?);
    Ok(service("containerd", command, machine))
}

fn kubelet_service(parts: &NodeParts, machine: &Machine, plane: &ControlPlane) -> Result<Service> {
    let (folder, place) = (machine.folder(), machine.place());
    let kubeconfig = folder.join("kubelet.kubeconfig");
    write(&kubeconfig, &plane.kubeconfig_of(User::Node))?;
    let name_servers = folder.join("resolv.conf");
    write(&name_servers, &kubelet::name_servers(place))?;
    let settings = folder.join("kubelet.json");
    let text = kubelet::settings(place, &machine.group(), &plane.ca_file(), &name_servers);
    write(&settings, &text.to_string())?;
    let mut command = machine.command(&parts.kubelet);
    command
        .arg("--config")
        .arg(settings)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--hostname-override", &place.name()])
        .args(["--node-ip", &place.address().to_string()]);
    Ok(service("kubelet", command, machine))
}

fn proxy_service(parts: &NodeParts, machine: &Machine, plane: &ControlPlane) -> Result<Service> {
    let folder = machine.folder();
    let kubeconfig = folder.join("kube-proxy.kubeconfig");
    write(&kubeconfig, &plane.kubeconfig_of(User::Proxy))?;
    let settings = folder.join("kube-proxy.json");
    let text = proxy::settings(machine.place(), &kubeconfig);
    write(&settings, &text.to_string())?;
    let mut command = machine.command(&parts.kube_proxy);
    command.arg("--config").arg(settings);
    Ok(service("kube-proxy", command, machine))
}

/// The search path, with a program's folder before all others.
fn path_with(program: &Path) -> Result<OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let folders = program
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(std::env::split_paths(&inherited));
    std::env::join_paths(folders).context("a folder of the search path has a colon in its name")
}

fn service(name: &'static str, command: Command, machine: &Machine) -> Service {
    Service::new(name, command, log(machine, name))
}

fn log(machine: &Machine, name: &str) -> PathBuf {
    machine.folder().join(format!("{name}.log"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
