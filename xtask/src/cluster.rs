//! A cluster for trials: Kubernetes, Kafka and S3 in the background, until they are ended. The testbed runs them; its
//! program `cluster` holds them and writes `cluster.json`, which is all that is known here.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::images::{self, Profile};
use crate::project::Project;
use crate::{node, parts, process, system, test, trial};

/// A cold start on two busy cores; half a minute is usual.
const START: Duration = Duration::from_secs(300);
const END: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// Under cargo's target directory.
const FOLDER: &str = "cluster";
const STATE: &str = "cluster.json";
/// What the holding program is called.
const PROGRAM: &str = "cluster";

#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Start Kubernetes with one node, Kafka and S3 in the background, and say how to reach them
    ///
    /// With KUBECONFIG set, that cluster is taken, and only Kafka and S3 are started.
    Up(Up),
    /// Build the images of the worker and the operator, bring them to the node, and install the chart with them
    Load(Load),
    /// Run all tests that take a node: on clusters of their own, which end with them
    Test,
    /// End what `up` started
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where Kafka and S3 listen for the pods of the cluster that KUBECONFIG names (default: this machine's first address)
    #[arg(long)]
    address: Option<Ipv4Addr>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Take the programs that are shipped (a release build), not those that tests run
    #[arg(long)]
    release: bool,
    /// The tag of both images
    #[arg(long, default_value = images::TAG)]
    tag: String,
}

/// What the holding program says when all is up.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    pid: u32,
    /// `host:port`, comma separated.
    pub(crate) kafka: String,
    pub(crate) s3: S3,
    /// Of our own cluster.
    kubeconfig: Option<PathBuf>,
    /// A command that brings an archive of images to the node, but for the archive.
    import: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct S3 {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) bucket: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// `cargo xtask cluster`.
pub(crate) fn cluster(project: &Project, step: &Step) -> Result<()> {
    match step {
        Step::Up(options) => up(project, options),
        Step::Load(options) => load(project, options),
        Step::Test => test::test_on_nodes(project),
        Step::Down => down(project),
    }
}

fn up(project: &Project, options: &Up) -> Result<()> {
    let folder = project.target(FOLDER);
    if let Some(state) = running(&folder)? {
        println!("it is up already");
        return print(project, &state);
    }
    system::ensure(system::FOR_TESTING)?;
    parts::install(project)?;
    let mut program = holder(project)?;
    match (project.kubeconfig(), node::obstacle(project)) {
        (Some(kubeconfig), _) => {
            let address = options.address.map_or_else(first_address, Ok)?;
            println!("taking the cluster of {}", kubeconfig.display());
            program.arg("--only-services-at").arg(address.to_string());
        }
        (None, None) => parts::install_node(project)?,
        (None, Some(obstacle)) => bail!(
            "this machine cannot run a Kubernetes node: {obstacle}; fix: set KUBECONFIG to a cluster that you have"
        ),
    }
    // What an ended one left.
    remove(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let log_path = folder.join("cluster.log");
    let log = fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    program
        .arg("--folder")
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log)
        // What a terminal sends to us is not for it.
        .process_group(0);
    println!("starting");
    let child = program
        .spawn()
        .with_context(|| format!("cannot start `{}`", process::line(&program)))?;
    let state = wait_until_up(child, &folder)?;
    print(project, &state)
}

/// The program that holds everything, built.
fn holder(project: &Project) -> Result<std::process::Command> {
    let mut cargo = project.cargo("build");
    cargo.args(["--locked", "--package=separation-testbed", "--bin", PROGRAM]);
    println!("{}", process::line(&cargo));
    process::run(&mut cargo)?;
    Ok(project.command(project.target(format!("debug/{PROGRAM}"))))
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

fn print(project: &Project, state: &State) -> Result<()> {
    if let Some(kubeconfig) = &state.kubeconfig {
        let [kubectl, helm] = parts::tools(project)?;
        println!("\nexport KUBECONFIG={}", kubeconfig.display());
        println!("export PATH={}:{}:$PATH", kubectl.display(), helm.display());
    }
    let s3 = &state.s3;
    println!(
        "\nfor pods:\n  Kafka   {}\n  S3      {}  region {}  bucket {}  access key {}  secret key {}",
        state.kafka, s3.endpoint, s3.region, s3.bucket, s3.access_key, s3.secret_key
    );
    println!("\ncargo xtask cluster load    builds the images and installs the operator with them");
    println!("cargo xtask cluster down    ends it all");
    Ok(())
}

fn load(project: &Project, options: &Load) -> Result<()> {
    let folder = project.target(FOLDER);
    let state = running(&folder)?.context("there is no cluster; fix: `cargo xtask cluster up` starts one")?;
    let profile = if options.release {
        Profile::Release
    } else {
        Profile::Tests
    };
    let built = images::build(project, profile, &options.tag)?;
    let (Some(kubeconfig), Some((program, arguments))) = (&state.kubeconfig, state.import.split_first())
    else {
        for image in built {
            println!(
                "bring {} to your cluster as {}",
                image.archive.display(),
                image.name
            );
        }
        return Ok(());
    };
    for image in &built {
        let mut importing = project.command(program);
        importing.args(arguments).arg(&image.archive);
        process::run(&mut importing)?;
        println!("the node has {}", image.name);
    }
    trial::install(project, &folder, &state, kubeconfig, &built)
}

fn down(project: &Project) -> Result<()> {
    let folder = project.target(FOLDER);
    let Some(state) = running(&folder)? else {
        println!("there is no cluster");
        return remove(&folder);
    };
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
    println!("the cluster has ended");
    remove(&folder)
}

/// What runs, if it does.
fn running(folder: &Path) -> Result<Option<State>> {
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
    process::run(std::process::Command::new("kill").arg(pid.to_string()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The address that this machine would call others from.
fn first_address() -> Result<Ipv4Addr> {
    // Nothing is sent; TEST-NET-1 (RFC 5737) is nobody's.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    });
    match socket.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => Ok(address),
        _ => bail!("this machine has no address that others reach; fix: give --address"),
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
