//! Tests `cargo xtask cluster up`, `load` and `down`, and between them a song through the API and the pool.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::daemon::{self, ClusterProcess, ClusterState};
use super::sample_setup::{self, API, PASSWORD, POOL, POOL_NAME, POOL_NAMESPACE, WORKER};
use crate::images::Image;
use crate::project::Project;
use crate::{components, process, songs};

/// Name of the directory under cargo's target directory: the user may have another cluster running.
const DIRECTORY: &str = "cluster-smoke-test";

const SONG: &str = "calm_acoustic_1";

/// Fails unless a song submitted to the API of such a cluster is returned as stems. Requires the tests'
/// programs.
pub(crate) fn run_smoke_test(project: &Project, images: &[Image]) -> Result<()> {
    let directory = project.target(DIRECTORY);
    println!("testing `cargo xtask cluster`");
    let state = ClusterProcess::built(project).start(&directory)?;
    let tested = submit_song(project, &directory, &state, images);
    let ended = daemon::end(&directory, &state);
    tested.and(ended)
}

fn submit_song(project: &Project, directory: &Path, state: &ClusterState, images: &[Image]) -> Result<()> {
    sample_setup::install(project, directory, state, images)?;
    let [kubectl, _] = components::tools(project)?;
    let kubectl = |arguments: &[&str]| {
        let mut command = project.command(kubectl.join("kubectl"));
        command
            .envs(state.kubeconfig.iter().map(|file| ("KUBECONFIG", file)))
            .args(arguments);
        command
    };
    let pool = directory.join(POOL);
    process::run(kubectl(&["apply", "-f"]).arg(&pool))?;
    let resource = format!("separationpool/{POOL_NAME}");
    let wait_arguments = [
        "wait",
        "--for=condition=Ready",
        &resource,
        "--namespace",
        POOL_NAMESPACE,
        "--timeout=180s",
    ];
    process::run(&mut kubectl(&wait_arguments))?;
    let deployment = format!("deployment/{API}");
    let rollout_arguments = [
        "--namespace",
        POOL_NAMESPACE,
        "rollout",
        "status",
        &deployment,
        "--timeout=180s",
    ];
    process::run(&mut kubectl(&rollout_arguments))?;
    let service = format!("service/{API}");
    let forward_arguments = ["--namespace", POOL_NAMESPACE, "port-forward", &service, ":80"];
    let forwarder = Forwarder::start(kubectl(&forward_arguments))?;
    let song = songs::install(project)?.join(format!("{SONG}.opus"));
    let stems = directory.join("stems");
    let mut submitting = project.command(project.target(WORKER));
    submitting
        .env("BASIC_AUTH_PASSWORD", PASSWORD)
        .arg("submit")
        .arg(&song)
        .args(["--api", &format!("http://{}", forwarder.address), "--output"])
        .arg(&stems);
    process::run(&mut submitting)?;
    for stem in ["vocals", "instrumental"] {
        let path = stems.join(format!("{SONG}_{stem}.wav"));
        ensure!(path.is_file(), "{} is missing", path.display());
    }
    Ok(())
}

/// `kubectl port-forward`, which ends with this.
struct Forwarder {
    process: Child,
    address: String,
    // Kept open: kubectl would fail on writing to a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl Forwarder {
    fn start(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&command)))?;
        let output = process.stdout.take().context("no standard output")?;
        let (mut output, mut first) = (BufReader::new(output), String::new());
        let read = output.read_line(&mut first);
        // `Forwarding from 127.0.0.1:43215 -> 8000`.
        let address = first.split_whitespace().nth(2).unwrap_or_default();
        let forwarder = Self {
            process,
            address: address.to_owned(),
            _output: output,
        };
        read.context("cannot read kubectl's output")?;
        ensure!(
            !forwarder.address.is_empty(),
            "kubectl does not forward; it printed `{first}`"
        );
        Ok(forwarder)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
