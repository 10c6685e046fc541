//! Nothing of a node stays behind, also when the test is killed.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use separation_testbed::{ControlPlane, ControlPlaneOptions, Folder, Machine, Node, Receiver, eventually};

use crate::is_left_out;

const SOON: Duration = Duration::from_secs(30);

/// What a machine shows outside of itself.
struct Traces {
    device: PathBuf,
    folder: PathBuf,
    group: String,
    pods: String,
}

impl Traces {
    fn of(machine: &Machine) -> Self {
        let place = machine.place();
        Self {
            device: Path::new("/sys/class/net").join(place.name()),
            folder: machine.folder().path().to_owned(),
            group: machine.group(),
            pods: place.pods(),
        }
    }

    /// Those that are there, in words.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut note = |is_there: bool, what: String| {
            if is_there {
                left.push(what);
            }
        };
        note(self.device.exists(), self.device.display().to_string());
        note(self.folder.exists(), self.folder.display().to_string());
        let folder = self.folder.to_str().unwrap();
        note(
            read("/proc/mounts").contains(folder),
            format!("mounts of {folder}"),
        );
        let routes = said("ip", &["route"]);
        note(routes.contains(&self.pods), format!("a route to {}", self.pods));
        for group in groups(&self.group) {
            note(true, group.display().to_string());
        }
        for (process, line) in processes() {
            note(line.contains(folder), format!("process {process}: {line}"));
        }
        left
    }
}

/// What belongs to the whole system, and is not to be changed.
fn system() -> String {
    let tunables = [
        "vm/overcommit_memory",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/ip_forward",
    ];
    let tunables = tunables.map(|name| read(&format!("/proc/sys/{name}")));
    format!("{}{tunables:?}", said("nft", &["list", "tables"]))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Control groups of this name, in any hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    hierarchies
        .chain([root.to_owned()])
        .map(|hierarchy| hierarchy.join(name))
        .filter(|group| group.exists())
        .collect()
}

/// The command lines of all processes.
fn processes() -> Vec<(String, String)> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.to_owned();
            // Most of what is there is no process; others end while we look.
            let line = fs::read(path.join("cmdline")).ok()?;
            Some((number, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

#[tokio::test]
async fn a_dropped_node_with_a_running_pod_leaves_the_system_as_it_was() {
    if is_left_out() {
        return;
    }
    let before = system();
    let machine = Machine::start().await.unwrap();
    let traces = Traces::of(&machine);
    let options = ControlPlaneOptions {
        node: Some(machine.place()),
        ..Default::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let node = Node::start(machine, &plane).await.unwrap();
    let api = crate::api::Api::of(&plane);
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "endless"},
        "spec": {"containers": [{
            "name": "shell",
            "image": node.busybox(),
            "args": ["-c", "echo I am ready; sleep 100000"],
        }]},
    });
    api.create(&pod).await;
    api.log_with("endless", "I am ready").await;
    // Each kind of trace is one that this test would see.
    let there = traces.left().join("\n");
    for part in [
        "/sys/class/net/",
        "a route",
        "/sys/fs/cgroup/",
        "kubelet --config",
    ] {
        assert!(there.contains(part), "no {part} in {there}");
    }
    let start = std::time::Instant::now();
    drop(node);
    let left = traces.left();
    assert!(left.is_empty(), "{left:#?}");
    assert!(start.elapsed() < SOON);
    assert_eq!(system(), before);
}

#[tokio::test]
async fn machines_stand_side_by_side() {
    if is_left_out() {
        return;
    }
    let (one, other) = (Machine::start().await.unwrap(), Machine::start().await.unwrap());
    assert_ne!(one.place(), other.place());
    for machine in [&one, &other] {
        let receiver = Receiver::start_at(machine.place().host_address()).await.unwrap();
        let address = receiver.address().to_string().parse::<SocketAddrV4>().unwrap();
        assert!(machine.reaches(address).await.unwrap());
        // Port 1, where nobody listens.
        let nobody = SocketAddrV4::new(*address.ip(), 1);
        assert!(!machine.reaches(nobody).await.unwrap());
    }
}

/// What the test below starts as a process of its own, to be killed.
#[tokio::test]
async fn a_machine_that_waits_to_be_killed() {
    let Ok(told) = std::env::var("TESTBED_TELL_MACHINE") else {
        return;
    };
    let machine = Machine::start().await.unwrap();
    let traces = Traces::of(&machine);
    let text = format!(
        "{}\n{}\n{}\n{}",
        traces.device.display(),
        traces.folder.display(),
        traces.group,
        traces.pods
    );
    fs::write(format!("{told}.part"), text).unwrap();
    fs::rename(format!("{told}.part"), told).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_machine_does_not_outlive_a_killed_test() {
    if is_left_out() {
        return;
    }
    let folder = Folder::new().unwrap();
    let told = folder.join("told");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::a_machine_that_waits_to_be_killed"])
        .env("TESTBED_TELL_MACHINE", &told)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = eventually("word of the machine", SOON, async || {
        fs::read_to_string(&told).ok()
    })
    .await;
    let lines: Vec<_> = text.lines().collect();
    let traces = Traces {
        device: lines[0].into(),
        folder: lines[1].into(),
        group: lines[2].to_owned(),
        pods: lines[3].to_owned(),
    };
    assert!(traces.left().len() >= 4, "{:#?}", traces.left());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("end of all traces", SOON, async || {
        let left = traces.left();
        anyhow::ensure!(left.is_empty(), "{left:#?}");
        anyhow::Ok(true)
    })
    .await;
}
