//! The process that holds a cluster. The testbed's program `cluster` is that; it writes `cluster.json`, which is all
//! that is known here.

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
/// What the holding program is called.
const PROGRAM: &str = "cluster";

/// What the holding program says when all is up.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    pid: u32,
    /// `host:port`, comma separated.
    pub(super) kafka: String,
    pub(super) s3: S3,
    /// Of our own cluster.
    pub(super) kubeconfig: Option<PathBuf>,
    /// A command that brings an archive of images to the node, but for the archive.
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

/// The program that holds everything, before it is started.
pub(super) struct Holder {
    program: Command,
}

impl Holder {
    /// Builds it.
    pub(super) fn build(project: &Project) -> Result<Self> {
        let mut cargo = project.cargo("build");
        cargo.args(["--locked", "--package=separation-testbed", "--bin", PROGRAM]);
        println!("{}", process::line(&cargo));
        process::run(&mut cargo)?;
        Ok(Self::built(project))
    }

    /// As the tests' build left it.
    pub(super) fn built(project: &Project) -> Self {
        Self {
            program: project.command(project.target(format!("debug/{PROGRAM}"))),
        }
    }

    /// No cluster of our own, but Kafka and S3 at this address.
    pub(super) fn only_services_at(&mut self, address: Ipv4Addr) {
        self.program.arg("--only-services-at").arg(address.to_string());
    }

    /// Starts it in the background and waits until all is up.
    pub(super) fn start(mut self, folder: &Path) -> Result<State> {
        // What an ended one left.
        remove(folder)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log_path = folder.join("cluster.log");
        let log =
            fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        self.program
            .arg("--folder")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            // What a terminal sends to us is not for it.
            .process_group(0);
        println!("starting");
        let child = self
            .program
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&self.program)))?;
        wait_until_up(child, folder)
    }
}

/// Ends one, and waits until that is done.
pub(super) fn end(folder: &Path, state: &State) -> Result<()> {
    terminate(state.pid)?;
    let deadline = Instant::now() + END;
    while is_holder(state.pid) {
        ensure!(
            Instant::now() < deadline,
            "process {} does not end within {END:?}; fix: look into {} and kill it",
            state.pid,
            folder.join("cluster.log").display()
        );
        sleep(POLL);
    }
    remove(folder)
}

fn wait_until_up(mut child: Child, folder: &Path) -> Result<State> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(state) = read(folder)? {
            return Ok(state);
        }
        let ended = child.try_wait().context("cannot watch what was started")?;
        let log = || fs::read_to_string(folder.join("cluster.log")).unwrap_or_default();
        if let Some(status) = ended {
            bail!("the cluster did not start ({status}); it said:\n{}", log());
        }
        if Instant::now() >= deadline {
            terminate(child.id())?;
            bail!("the cluster is not up after {START:?}; it said:\n{}", log());
        }
        sleep(POLL);
    }
}

/// What runs, if it does.
pub(super) fn running(folder: &Path) -> Result<Option<State>> {
    Ok(read(folder)?.filter(|state| is_holder(state.pid)))
}

/// What was said last, by one that may have ended.
fn read(folder: &Path) -> Result<Option<State>> {
    let path = folder.join(STATE);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is not as expected", path.display())),
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whether this number still belongs to the program that we started.
fn is_holder(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process that has ended and that nobody waited for has no command line any more.
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    name.trim() == PROGRAM && !line.is_empty()
}

fn terminate(pid: u32) -> Result<()> {
    process::run(Command::new("kill").arg(pid.to_string()))
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_run_any_more_is_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        assert!(running(dir.path()).unwrap().is_none());
        // This test, which is not called `cluster`.
        let said = serde_json::json!({
            "pid": std::process::id(),
            "kafka": "10.123.7.1:12000",
            "s3": {"endpoint": "http://10.123.7.1:12001", "region": "r", "bucket": "b", "accessKey": "a", "secretKey": "s"},
            "kubeconfig": "kubeconfig",
            "import": ["ctr"],
        });
        fs::write(dir.path().join(STATE), said.to_string()).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().import, ["ctr"]);
        assert!(running(dir.path()).unwrap().is_none());
        fs::write(dir.path().join(STATE), "{}").unwrap();
        assert!(running(dir.path()).is_err());
    }
}
