//! `cargo xtask cluster up`, `load` and `down` with what one does between them, once: a song through the API and the pool.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::held::{self, Holder, State};
use super::trial::{API, NAMESPACE, PASSWORD, POOL, POOL_NAME, POOL_NAMESPACE, WORKER};
use crate::images::Image;
use crate::project::Project;
use crate::{parts, process, songs};

/// Under cargo's target directory: somebody may have a cluster of their own beside this.
const FOLDER: &str = "cluster-tried";

const SONG: &str = "calm_acoustic_1";

/// Fails unless a song that is posted to the API of such a cluster comes back as stems. The tests' programs are built.
pub(crate) fn as_a_test(project: &Project, images: &[Image]) -> Result<()> {
    let folder = project.target(FOLDER);
    println!("a cluster, as one tries it out");
    let state = Holder::built(project).start(&folder)?;
    let tried = try_out(project, &folder, &state, images);
    let ended = held::end(&folder, &state);
    tried.and(ended)
}

fn try_out(project: &Project, folder: &Path, state: &State, images: &[Image]) -> Result<()> {
    super::bring(project, folder, state, images)?;
    let [kubectl, _] = parts::tools(project)?;
    let kubectl = |arguments: &[&str]| {
        let mut command = project.command(kubectl.join("kubectl"));
        command
            .envs(state.kubeconfig.iter().map(|file| ("KUBECONFIG", file)))
            .args(arguments);
        command
    };
    let pool = folder.join(POOL);
    process::run(kubectl(&["apply", "-f"]).arg(&pool))?;
    let resource = format!("separationpool/{POOL_NAME}");
    let waiting = [
        "wait",
        "--for=condition=Ready",
        &resource,
        "--namespace",
        POOL_NAMESPACE,
        "--timeout=180s",
    ];
    process::run(&mut kubectl(&waiting))?;
    let service = format!("service/{API}");
    let forwarding = ["--namespace", NAMESPACE, "port-forward", &service, ":80"];
    let forwarder = Forwarder::start(kubectl(&forwarding))?;
    let song = songs::install(project)?.join(format!("{SONG}.opus"));
    let stems = folder.join("stems");
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
    // Whoever says something to nobody ends.
    _said: BufReader<ChildStdout>,
}

impl Forwarder {
    fn start(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&command)))?;
        let said = process.stdout.take().context("no standard output")?;
        let (mut said, mut first) = (BufReader::new(said), String::new());
        let read = said.read_line(&mut first);
        // `Forwarding from 127.0.0.1:43215 -> 8000`.
        let address = first.split_whitespace().nth(2).unwrap_or_default();
        let forwarder = Self {
            process,
            address: address.to_owned(),
            _said: said,
        };
        read.context("cannot read what kubectl says")?;
        ensure!(
            !forwarder.address.is_empty(),
            "kubectl forwards nothing, and says `{first}`"
        );
        Ok(forwarder)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
