//! A node leaves nothing behind, even if the test is killed.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use separation_testbed::{
    ControlPlane, ControlPlaneOptions, Machine, Node, Receiver, TempDirectory, eventually,
};

use crate::is_skipped;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Traces of a machine outside of it.
struct Traces {
    device: PathBuf,
    directory: PathBuf,
    group: String,
    pod_subnet: String,
}

impl Traces {
    fn of_machine(machine: &Machine) -> Self {
        let network = machine.network();
        Self {
            device: Path::new("/sys/class/net").join(network.name()),
            directory: machine.directory().path().to_owned(),
            group: machine.group(),
            pod_subnet: network.pod_subnet(),
        }
    }

    /// Descriptions of the traces that exist.
    fn remaining(&self) -> Vec<String> {
        let mut remaining = Vec::new();
        let mut note = |exists: bool, what: String| {
            if exists {
                remaining.push(what);
            }
        };
        note(self.device.exists(), self.device.display().to_string());
        note(self.directory.exists(), self.directory.display().to_string());
        let directory = self.directory.to_str().unwrap();
        note(
            read("/proc/mounts").contains(directory),
            format!("mounts of {directory}"),
        );
        let routes = output_of("ip", &["route"]);
        note(
            routes.contains(&self.pod_subnet),
            format!("a route to {}", self.pod_subnet),
        );
        for group in groups(&self.group) {
            note(true, group.display().to_string());
        }
        for (process, line) in processes() {
            note(line.contains(directory), format!("process {process}: {line}"));
        }
        remaining
    }
}

/// Settings of the complete system, which must not change.
fn system() -> String {
    let tunables = [
        "vm/overcommit_memory",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/ip_forward",
    ];
    let tunables = tunables.map(|name| read(&format!("/proc/sys/{name}")));
    format!("{}{tunables:?}", output_of("nft", &["list", "tables"]))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

fn output_of(program: &str, arguments: &[&str]) -> String {
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
            // Most entries are not processes; others end during the scan.
            let line = fs::read(path.join("cmdline")).ok()?;
            Some((number, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

#[tokio::test]
async fn a_dropped_node_with_a_running_pod_leaves_the_system_as_it_was() {
    if is_skipped() {
        return;
    }
    let before = system();
    let machine = Machine::start().await.unwrap();
    let traces = Traces::of_machine(&machine);
    let options = ControlPlaneOptions {
        node: Some(machine.network()),
        ..Default::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let node = Node::start(machine, &plane).await.unwrap();
    let api = crate::api::Api::new(&plane);
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
    // Checks that this test would detect each kind of trace.
    let found = traces.remaining().join("\n");
    for part in [
        "/sys/class/net/",
        "a route",
        "/sys/fs/cgroup/",
        "kubelet --config",
    ] {
        assert!(found.contains(part), "no {part} in {found}");
    }
    let start = std::time::Instant::now();
    drop(node);
    let remaining = traces.remaining();
    assert!(remaining.is_empty(), "{remaining:#?}");
    assert!(start.elapsed() < TIMEOUT);
    assert_eq!(system(), before);
}

#[tokio::test]
async fn machines_run_in_parallel() {
    if is_skipped() {
        return;
    }
    let (one, other) = (Machine::start().await.unwrap(), Machine::start().await.unwrap());
    assert_ne!(one.network(), other.network());
    for machine in [&one, &other] {
        let receiver = Receiver::start_at(machine.network().host_address())
            .await
            .unwrap();
        let address = receiver.address().to_string().parse::<SocketAddrV4>().unwrap();
        assert!(machine.reaches(address).await.unwrap());
        // Port 1 has no listener.
        let unused = SocketAddrV4::new(*address.ip(), 1);
        assert!(!machine.reaches(unused).await.unwrap());
    }
}

/// Started by the test below as a separate process, to be killed.
#[tokio::test]
async fn a_machine_that_is_killed() {
    let Ok(report) = std::env::var("TESTBED_REPORT_MACHINE") else {
        return;
    };
    let machine = Machine::start().await.unwrap();
    let traces = Traces::of_machine(&machine);
    let text = format!(
        "{}\n{}\n{}\n{}",
        traces.device.display(),
        traces.directory.display(),
        traces.group,
        traces.pod_subnet
    );
    fs::write(format!("{report}.part"), text).unwrap();
    fs::rename(format!("{report}.part"), report).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_machine_does_not_outlive_a_killed_test() {
    if is_skipped() {
        return;
    }
    let directory = TempDirectory::new().unwrap();
    let report = directory.join("report");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::a_machine_that_is_killed"])
        .env("TESTBED_REPORT_MACHINE", &report)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = eventually("output of the machine", TIMEOUT, async || {
        fs::read_to_string(&report).ok()
    })
    .await;
    let lines: Vec<_> = text.lines().collect();
    let traces = Traces {
        device: lines[0].into(),
        directory: lines[1].into(),
        group: lines[2].to_owned(),
        pod_subnet: lines[3].to_owned(),
    };
    assert!(traces.remaining().len() >= 4, "{:#?}", traces.remaining());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("end of all traces", TIMEOUT, async || {
        let remaining = traces.remaining();
        anyhow::ensure!(remaining.is_empty(), "{remaining:#?}");
        anyhow::Ok(true)
    })
    .await;
}
