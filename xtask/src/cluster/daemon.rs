//! The background process that runs a cluster: the testbed's program `cluster`. The only interface to it is
//! `cluster.json`, which it writes.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::process;
use crate::project::Project;

/// A cold start on two busy cores; half a minute is usual.
const START: Duration = Duration::from_secs(300);
const END: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

const STATE: &str = "cluster.json";
/// The name of that program.
const PROGRAM: &str = "cluster";

/// The program's state file, written once everything is up.
#[derive(Debug, Deserialize)]
pub(super) struct ClusterState {
    pid: u32,
    /// `host:port` of the brokers, comma separated.
    pub(super) kafka: String,
    pub(super) s3: S3,
    /// The kubeconfig of our own cluster.
    pub(super) kubeconfig: Option<PathBuf>,
    /// The command that imports an image archive into the node; the archive is appended.
    pub(super) import: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct S3 {
    pub(super) endpoint: String,
    pub(super) region: String,
    pub(super) bucket: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

/// The program, before it is started.
pub(super) struct ClusterProcess {
    program: Command,
}

impl ClusterProcess {
    pub(super) fn build(project: &Project) -> Result<Self> {
        let mut cargo = project.cargo("build");
        cargo.args(["--locked", "--package=separation-testbed", "--bin", PROGRAM]);
        println!("{}", process::line(&cargo));
        process::run(&mut cargo)?;
        Ok(Self::built(project))
    }

    /// Uses the binary of the tests' build.
    pub(super) fn built(project: &Project) -> Self {
        Self {
            program: project.command(project.target(format!("debug/{PROGRAM}"))),
        }
    }

    /// Starts only Kafka and S3, at this address, and no cluster.
    pub(super) fn only_services_at(&mut self, address: Ipv4Addr) {
        self.program.arg("--only-services-at").arg(address.to_string());
    }

    /// Starts the program in the background and waits until everything is up.
    pub(super) fn start(mut self, directory: &Path) -> Result<ClusterState> {
        // Left by an earlier run.
        remove(directory)?;
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let log_path = directory.join("cluster.log");
        let log =
            fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        self.program
            .arg("--directory")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            // Signals that a terminal sends to our process group must not reach it.
            .process_group(0);
        println!("starting");
        let child = self
            .program
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&self.program)))?;
        wait_until_up(child, directory)
    }
}

/// Stops a cluster and waits until it has ended.
pub(super) fn end(directory: &Path, state: &ClusterState) -> Result<()> {
    terminate(state.pid)?;
    let deadline = Instant::now() + END;
    while is_cluster_process(state.pid) {
        ensure!(
            Instant::now() < deadline,
            "process {} does not exit within {END:?}; fix: check the log in {} and kill it",
            state.pid,
            directory.join("cluster.log").display()
        );
        sleep(POLL);
    }
    remove(directory)
}

fn wait_until_up(mut child: Child, directory: &Path) -> Result<ClusterState> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(state) = read(directory)? {
            return Ok(state);
        }
        let ended = child.try_wait().context("cannot wait for the cluster program")?;
        let log = || fs::read_to_string(directory.join("cluster.log")).unwrap_or_default();
        if let Some(status) = ended {
            bail!("the cluster did not start ({status}); its log:\n{}", log());
        }
        if Instant::now() >= deadline {
            terminate(child.id())?;
            bail!("the cluster is not up after {START:?}; its log:\n{}", log());
        }
        sleep(POLL);
    }
}

/// The state of the running cluster, if there is one.
pub(super) fn running(directory: &Path) -> Result<Option<ClusterState>> {
    Ok(read(directory)?.filter(|state| is_cluster_process(state.pid)))
}

/// The latest state file, possibly of a cluster that has ended.
fn read(directory: &Path) -> Result<Option<ClusterState>> {
    let path = directory.join(STATE);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is invalid", path.display())),
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whether this process id still belongs to the program that we started.
fn is_cluster_process(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A zombie process has an empty command line.
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    name.trim() == PROGRAM && !line.is_empty()
}

fn terminate(pid: u32) -> Result<()> {
    process::run(Command::new("kill").arg(pid.to_string()))
}

pub(super) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_not_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        assert!(running(dir.path()).unwrap().is_none());
        // This test's process, whose name is not `cluster`.
        let state = serde_json::json!({
            "pid": std::process::id(),
            "kafka": "10.123.7.1:12000",
            "s3": {"endpoint": "http://10.123.7.1:12001", "region": "r", "bucket": "b", "accessKey": "a", "secretKey": "s"},
            "kubeconfig": "kubeconfig",
            "import": ["ctr"],
        });
        fs::write(dir.path().join(STATE), state.to_string()).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().import, ["ctr"]);
        assert!(running(dir.path()).unwrap().is_none());
        fs::write(dir.path().join(STATE), "{}").unwrap();
        assert!(running(dir.path()).is_err());
    }
}
