//! A virtual machine made of namespaces: its own processes, mounts, network and control groups, connected by
//! a veth pair.
//!
//! Its processes, mounts and network belong to namespaces that end with its first process, which ends with
//! ours. Outside of them there are only one end of the veth pair, a route and the control groups; nothing
//! else of the system changes, so several machines can run in parallel. Requires root.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::components::NodeComponents;
use crate::{Process, TempDirectory, background};

const FIRST_PROCESS: &str = include_str!("machine.sh");
const JANITOR: &str = include_str!("janitor.sh");
const START: Duration = Duration::from_secs(20);
/// Timeout until killed processes are gone.
const END: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(1);

/// Mount point of control groups.
const GROUPS: &str = "/sys/fs/cgroup";
/// Controllers that a kubelet uses; with control groups v2, each must be enabled.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Machines have the networks 10.123.0.0/24 to 10.123.254.0/24.
const MACHINES: u8 = 255;

/// A machine's name and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineNetwork {
    number: u8,
}

impl MachineNetwork {
    /// Its name, which is also that of our end of the veth pair and of its node.
    pub fn name(&self) -> String {
        format!("separation-{}", self.number)
    }

    /// Our end of the veth pair: servers listening here are reachable from the machine and its pods.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 123, self.number, 1)
    }

    /// The machine's end of the veth pair.
    pub fn machine_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 123, self.number, 2)
    }

    /// The network of its pods, reachable from here: 126 addresses.
    pub fn pod_subnet(&self) -> String {
        format!("10.123.{}.128/25", self.number)
    }
}

/// A running machine. It ends when this is dropped or our process ends.
#[derive(Debug)]
pub struct Machine {
    network: MachineNetwork,
    first: Pid,
    process: Process,
    janitor: Child,
    directory: TempDirectory,
}

impl Machine {
    /// Starts a machine and connects it.
    ///
    /// # Errors
    /// If its components are not installed, or the system does not allow it.
    pub async fn start() -> Result<Self> {
        let components = NodeComponents::locate()?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "a machine for a Kubernetes node requires root; fix: run this as root, or let `cargo xtask test` skip it"
        );
        let directory = TempDirectory::new()?;
        let (first, process) = start_first_process(&components.pause, &directory).await?;
        let network = background::blocking(move || connect(first)).await?;
        let machine = Self {
            network,
            first,
            process,
            janitor: start_janitor(&group(&directory))?,
            directory,
        };
        make_control_groups(Path::new(GROUPS), &machine.group())?;
        Ok(machine)
    }

    /// Its name and addresses.
    pub fn network(&self) -> MachineNetwork {
        self.network
    }

    /// A directory that is removed with it; it has the same path on both sides.
    pub fn directory(&self) -> &TempDirectory {
        &self.directory
    }

    /// The name of its control groups.
    pub fn group(&self) -> String {
        group(&self.directory)
    }

    /// A command that runs in it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.first.as_raw_nonzero().to_string())
            .args(["--mount", "--net", "--pid", "--"])
            .arg(program);
        command
    }

    /// The path, as seen from here, of a file in the machine.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{absolute}", self.first.as_raw_nonzero()))
    }

    /// Whether a TCP connection from inside the machine is accepted.
    ///
    /// # Errors
    /// If the machine has ended.
    pub async fn reaches(&self, address: SocketAddrV4) -> Result<bool> {
        let link = fs::File::open(format!("/proc/{}/ns/net", self.first.as_raw_nonzero()))
            .context("the machine has ended")?;
        background::blocking(move || {
            // Needs its own thread, which cannot leave that network namespace again.
            let attempt = std::thread::spawn(move || {
                move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
                io::Result::Ok(TcpStream::connect_timeout(&address.into(), CONNECT).is_ok())
            });
            let reached = attempt.join().map_err(|_| anyhow!("a thread panicked"))?;
            reached.context("cannot enter the machine's network")
        })
        .await
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Errors cannot be reported here; what remains is removed when the last process ends.
        let _ = run(Command::new("ip").args(["link", "delete", &self.network.name()]));
        let _ = kill_process(self.first, Signal::KILL);
        // The process that waits for the first process ends after it, and that one after all others.
        let deadline = Instant::now() + END;
        while self.process.exit_code().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// Starts the first process in new namespaces; returns its id outside of them, and the process that waits for
/// it.
async fn start_first_process(pause: &Path, directory: &TempDirectory) -> Result<(Pid, Process)> {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["sh", "-c", FIRST_PROCESS, "separation-testbed-machine"])
        .arg(directory.path())
        .arg(pause);
    let log = directory.join("machine.log");
    let process = Process::start("a machine", &unshare, &log, &log)?;
    let pid_file = directory.join("pid");
    let deadline = Instant::now() + START;
    loop {
        if let Ok(text) = fs::read_to_string(&pid_file) {
            let pid = text.trim().parse().ok().and_then(Pid::from_raw);
            return Ok((pid.context("the machine printed no process id")?, process));
        }
        if let Some(code) = process.exit_code() {
            bail!("a machine ended with {code}{}", process.log_end());
        }
        ensure!(
            Instant::now() < deadline,
            "a machine is not up after {START:?}{}",
            process.log_end()
        );
        tokio::time::sleep(crate::eventually::POLL).await;
    }
}

/// Connects the network of the first process under the first free number.
fn connect(first: Pid) -> Result<MachineNetwork> {
    let first = first.as_raw_nonzero().to_string();
    // Machines that start together try different numbers first.
    let start = std::process::id();
    for step in 0..u32::from(MACHINES) {
        let number =
            u8::try_from((start + step) % u32::from(MACHINES)).expect("below MACHINES, which is a u8");
        let network = MachineNetwork { number };
        let name = network.name();
        if Path::new("/sys/class/net").join(&name).exists() {
            continue;
        }
        let added = run(Command::new("ip")
            .args([
                "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns",
            ])
            .arg(&first));
        match added {
            Ok(()) => {}
            Err(error) if error.to_string().contains("File exists") => continue,
            Err(error) => return Err(error),
        }
        return assign_addresses(network, &first).map(|()| network);
    }
    bail!(
        "all {MACHINES} networks for machines are taken; fix: end some, `ip link` lists them as separation-NUMBER"
    );
}

fn assign_addresses(network: MachineNetwork, first: &str) -> Result<()> {
    let (host, inside_address) = (network.host_address(), network.machine_address());
    let name = network.name();
    let inside = ["--target", first, "--net", "ip"];
    run(Command::new("ip").args(["address", "add", &format!("{host}/30"), "dev", &name]))?;
    run(Command::new("ip").args(["link", "set", &name, "up"]))?;
    let address = format!("{inside_address}/30");
    let entering = || {
        let mut command = Command::new("nsenter");
        command.args(inside);
        command
    };
    run(entering().args(["address", "add", &address, "dev", "eth0"]))?;
    run(entering().args(["link", "set", "eth0", "up"]))?;
    run(entering().args(["route", "add", "default", "via", &host.to_string()]))?;
    run(Command::new("ip").args([
        "route",
        "add",
        &network.pod_subnet(),
        "via",
        &inside_address.to_string(),
    ]))
}

/// A name that no other machine has or had: a number is free again before its control groups are removed.
fn group(directory: &TempDirectory) -> String {
    let name = directory.path().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn start_janitor(name: &str) -> Result<Child> {
    Command::new("sh")
        .args(["-c", JANITOR, "separation-testbed-janitor", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Signals that a terminal sends to our process group must not stop the cleanup.
        .process_group(0)
        .spawn()
        .context("cannot start sh")
}

/// One per hierarchy if there are several, as with control groups v1.
fn make_control_groups(root: &Path, name: &str) -> Result<()> {
    let make = |group: PathBuf| {
        fs::create_dir_all(&group)
            .with_context(|| format!("cannot make the control group {}", group.display()))
    };
    let switches = root.join("cgroup.subtree_control");
    if switches.exists() {
        for controller in CONTROLLERS {
            fs::write(&switches, format!("+{controller}"))
                .with_context(|| format!("this system has no control groups of {controller}"))?;
        }
        return make(root.join(name));
    }
    for hierarchy in fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))? {
        let hierarchy = hierarchy.with_context(|| format!("cannot list {}", root.display()))?;
        // Symbolic links are other names of hierarchies.
        if hierarchy.file_type().is_ok_and(|kind| kind.is_dir()) {
            make(hierarchy.path().join(name))?;
        }
    }
    Ok(())
}

/// Runs a short command; its error output becomes the error.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_derived_from_its_number() {
        let network = MachineNetwork { number: 7 };
        assert_eq!(network.name(), "separation-7");
        assert_eq!(network.host_address().to_string(), "10.123.7.1");
        assert_eq!(network.machine_address().to_string(), "10.123.7.2");
        assert_eq!(network.pod_subnet(), "10.123.7.128/25");
        // The longest name of a network device.
        assert!(MachineNetwork { number: 254 }.name().len() <= 15);
    }

    #[test]
    fn control_groups_of_both_kinds_are_made() {
        let dir = tempfile::tempdir().unwrap();
        for hierarchy in ["cpu", "memory"] {
            fs::create_dir(dir.path().join(hierarchy)).unwrap();
        }
        make_control_groups(dir.path(), "name").unwrap();
        assert!(dir.path().join("cpu/name").is_dir() && dir.path().join("memory/name").is_dir());
        assert!(!dir.path().join("name").exists());
        fs::write(dir.path().join("cgroup.subtree_control"), "").unwrap();
        make_control_groups(dir.path(), "name").unwrap();
        assert!(dir.path().join("name").is_dir());
    }
}
