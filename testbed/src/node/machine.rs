//! A machine within this one: its own processes, mounts, network and control groups, and one cable to us.
//!
//! Its processes, mounts and network live in namespaces that go with the first of its processes, and that one goes with
//! us, however we end. Outside there is one end of the cable, a route and the control groups; nothing else of this
//! system is changed, so that several machines can stand side by side. It needs root.

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

use crate::parts::NodeParts;
use crate::{Folder, Process, background};

const FIRST_PROCESS: &str = include_str!("machine.sh");
const JANITOR: &str = include_str!("janitor.sh");
const START: Duration = Duration::from_secs(20);
/// For what has been killed to be gone.
const END: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(1);

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// What a kubelet limits; with control groups of version 2, each must be switched on.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Machines have the networks 10.123.0.0/24 to 10.123.254.0/24.
const MACHINES: u8 = 255;

/// A machine's name and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    number: u8,
}

impl Place {
    /// Its name: that of our end of the cable, and of the node on it.
    pub fn name(&self) -> String {
        format!("separation-{}", self.number)
    }

    /// Our end of the cable: what listens here is reached from the machine and from its pods.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 123, self.number, 1)
    }

    /// The machine's end of the cable.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 123, self.number, 2)
    }

    /// The network of its pods, which we reach too: 126 addresses.
    pub fn pods(&self) -> String {
        format!("10.123.{}.128/25", self.number)
    }
}

/// A running machine. All of it ends with this or with our process.
#[derive(Debug)]
pub struct Machine {
    place: Place,
    first: Pid,
    process: Process,
    janitor: Child,
    folder: Folder,
}

impl Machine {
    /// Makes one and connects it.
    ///
    /// # Errors
    /// When its parts are not installed, or this system does not allow it.
    pub async fn start() -> Result<Self> {
        let parts = NodeParts::locate()?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "a machine for a Kubernetes node takes root; fix: run this as root, or let `cargo xtask test` skip it"
        );
        let folder = Folder::new()?;
        let (first, process) = start_first_process(&parts.pause, &folder).await?;
        let place = background::blocking(move || connect(first)).await?;
        let machine = Self {
            place,
            first,
            process,
            janitor: start_janitor(&group(&folder))?,
            folder,
        };
        make_control_groups(Path::new(GROUPS), &machine.group())?;
        Ok(machine)
    }

    /// Its name and addresses.
    pub fn place(&self) -> Place {
        self.place
    }

    /// A folder that goes with it; it has the same path on both sides.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The name of its control groups.
    pub fn group(&self) -> String {
        group(&self.folder)
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

    /// Where we find a file of it.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{absolute}", self.first.as_raw_nonzero()))
    }

    /// Whether a TCP connection from within it is accepted.
    ///
    /// # Errors
    /// When the machine has ended.
    pub async fn reaches(&self, address: SocketAddrV4) -> Result<bool> {
        let link = fs::File::open(format!("/proc/{}/ns/net", self.first.as_raw_nonzero()))
            .context("the machine has ended")?;
        background::blocking(move || {
            // A thread of its own, for it never comes back from that network.
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
        // Nobody is left to tell of an error: what does not go now, goes when the last process does.
        let _ = run(Command::new("ip").args(["link", "delete", &self.place.name()]));
        let _ = kill_process(self.first, Signal::KILL);
        // The one that waits for the first process ends after it, and that one after all others.
        let deadline = Instant::now() + END;
        while self.process.exit_code().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// Starts it in namespaces of its own and gives its number as we see it, with the process that waits for it.
async fn start_first_process(pause: &Path, folder: &Folder) -> Result<(Pid, Process)> {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["sh", "-c", FIRST_PROCESS, "separation-testbed-machine"])
        .arg(folder.path())
        .arg(pause);
    let log = folder.join("machine.log");
    let process = Process::start("a machine", &unshare, &log, &log)?;
    let said = folder.join("pid");
    let deadline = Instant::now() + START;
    loop {
        if let Ok(text) = fs::read_to_string(&said) {
            let pid = text.trim().parse().ok().and_then(Pid::from_raw);
            return Ok((pid.context("a machine said no process id")?, process));
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

/// Lays the cable into the network of the first process, under the first number that is free.
fn connect(first: Pid) -> Result<Place> {
    let first = first.as_raw_nonzero().to_string();
    // Machines that start at once look in different places.
    let start = std::process::id();
    for step in 0..u32::from(MACHINES) {
        let number =
            u8::try_from((start + step) % u32::from(MACHINES)).expect("below MACHINES, which is a u8");
        let place = Place { number };
        let name = place.name();
        if Path::new("/sys/class/net").join(&name).exists() {
            continue;
        }
        let laid = run(Command::new("ip")
            .args([
                "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns",
            ])
            .arg(&first));
        match laid {
            Ok(()) => {}
            Err(error) if error.to_string().contains("File exists") => continue,
            Err(error) => return Err(error),
        }
        return address(place, &first).map(|()| place);
    }
    bail!(
        "all {MACHINES} networks for machines are taken; fix: end some, `ip link` lists them as separation-NUMBER"
    );
}

fn address(place: Place, first: &str) -> Result<()> {
    let (ours, theirs) = (place.host_address(), place.address());
    let name = place.name();
    let inside = ["--target", first, "--net", "ip"];
    run(Command::new("ip").args(["address", "add", &format!("{ours}/30"), "dev", &name]))?;
    run(Command::new("ip").args(["link", "set", &name, "up"]))?;
    let address = format!("{theirs}/30");
    let entering = || {
        let mut command = Command::new("nsenter");
        command.args(inside);
        command
    };
    run(entering().args(["address", "add", &address, "dev", "eth0"]))?;
    run(entering().args(["link", "set", "eth0", "up"]))?;
    run(entering().args(["route", "add", "default", "via", &ours.to_string()]))?;
    run(Command::new("ip").args(["route", "add", &place.pods(), "via", &theirs.to_string()]))
}

/// A name that none of the others has or had: a number is free again before the groups are gone.
fn group(folder: &Folder) -> String {
    let name = folder.path().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn start_janitor(name: &str) -> Result<Child> {
    Command::new("sh")
        .args(["-c", JANITOR, "separation-testbed-janitor", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What a terminal sends to our group must not stop it from tidying up.
        .process_group(0)
        .spawn()
        .context("cannot start sh")
}

/// One in each hierarchy where there are several, as with version 1.
fn make_control_groups(root: &Path, name: &str) -> Result<()> {
    let make = |group: PathBuf| {
        fs::create_dir_all(&group)
            .with_context(|| format!("cannot make the control group {}", group.display()))
    };
    let switches = root.join("cgroup.subtree_control");
    if switches.exists() {
        for controller in CONTROLLERS {
            fs::write(&switches, format!("+{controller}"))
                .with_context(|| format!("this system gives no control groups of {controller}"))?;
        }
        return make(root.join(name));
    }
    for hierarchy in fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))? {
        let hierarchy = hierarchy.with_context(|| format!("cannot list {}", root.display()))?;
        // Links are further names of hierarchies.
        if hierarchy.file_type().is_ok_and(|kind| kind.is_dir()) {
            make(hierarchy.path().join(name))?;
        }
    }
    Ok(())
}

/// Runs something short; the error says what it said.
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
    fn a_place_is_made_of_its_number() {
        let place = Place { number: 7 };
        assert_eq!(place.name(), "separation-7");
        assert_eq!(place.host_address().to_string(), "10.123.7.1");
        assert_eq!(place.address().to_string(), "10.123.7.2");
        assert_eq!(place.pods(), "10.123.7.128/25");
        // As long as a network device's name may be.
        assert!(Place { number: 254 }.name().len() <= 15);
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
