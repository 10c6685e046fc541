//! The commands of docs/local.md with the image of `separation-operator local`, in a pod in place of `docker run`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use separation_testbed::{Reply, TempDirectory, documented_commands, eventually, song};
use serde_json::{Value, json};

use crate::{STEP_TIMEOUT, System, paste};

const LOCAL: &str = include_str!("../../docs/local.md");
const START: &str = "The pipeline in one container";
const V1: &str = "With the HTTP API v1";
const DROP_IN: &str = "With the API of uvr5-api";

/// The pod takes its place.
const DOCKER: &str = "#!/bin/sh\n";

const NAMESPACE: &str = "default";
const NAME: &str = "local";

const SONG_SECONDS: f32 = 10.0;
/// Paths of a song and of webhooks at the receiver.
const SONG_PATH: &str = "/song.wav";
const HOOK_PATH: &str = "/hook";

/// Result of [`run_local_image`].
#[derive(Debug, Clone, Copy)]
pub struct LocalImageTimes {
    /// From the start of the container to the first response.
    pub start: Duration,
    /// From a song of 10 s to its stems, with the HTTP API v1.
    pub song: Duration,
}

/// Runs a pod with the image and every command of the document, and deletes the pod.
///
/// # Errors
/// If a command fails, or a stem is missing or too short.
pub async fn run_local_image(system: &System) -> Result<LocalImageTimes> {
    let cluster = &system.cluster;
    let image = system.import("local").await?;
    let content = Reply::Content("audio/wav".to_owned(), song(SONG_SECONDS, 2).into());
    system.hooks.script(SONG_PATH, [content]);
    let applied = SystemTime::now();
    cluster.apply(&[pod(&image)]).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{NAME}");
    let address = eventually("the pod's address", STEP_TIMEOUT, async || {
        let address = cluster.get(&path).await?["status"]["podIP"].take();
        anyhow::Ok(Some(address.as_str().context("none")?.to_owned()))
    })
    .await;
    run_block(system, &address, START).await?;
    let responded = SystemTime::now();
    let started = eventually("the container's log", STEP_TIMEOUT, async || {
        let logs = cluster.node.container_logs()?;
        let logs = logs
            .iter()
            .filter(|log| log.namespace == NAMESPACE && log.pod == NAME);
        // Not that of an earlier run.
        anyhow::Ok(
            logs.filter_map(|log| log.created)
                .find(|created| *created >= applied),
        )
    })
    .await;
    let start = responded.duration_since(started)?;

    let posted = Instant::now();
    let home = run_block(system, &address, V1).await?;
    let song = posted.elapsed();
    for stem in ["vocals.wav", "instrumental.wav"] {
        check_stem(&home.join(stem))?;
    }
    let home = run_block(system, &address, DROP_IN).await?;
    check_webhook(system, &home).await;
    let program = ["separation-operator", "local", "--healthcheck"];
    let health = ["exec", NAME, "--namespace", NAMESPACE, "--"];
    cluster.kubectl(&[&health[..], &program].concat()).await?;
    let delete = ["delete", "pod", NAME, "--namespace", NAMESPACE, "--now"];
    cluster.kubectl(&delete).await?;
    Ok(LocalImageTimes { start, song })
}

/// Runs the commands under a heading with the pod's address, and returns the directory with their files.
async fn run_block(system: &System, address: &str, heading: &str) -> Result<TempDirectory> {
    let home = TempDirectory::new()?;
    fs::write(home.join("song.wav"), song(SONG_SECONDS, 1)).context("cannot write a song")?;
    let docker = home.join("bin/docker");
    fs::create_dir(home.join("bin"))
        .and_then(|()| fs::write(&docker, DOCKER))
        .and_then(|()| fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", docker.display()))?;
    let commands = documented_commands(LOCAL, heading)
        .replace("127.0.0.1", address)
        .replace("localhost", address)
        .replace("https://files.example/song.wav", &system.hooks.url(SONG_PATH))
        .replace("https://your.example/hook", &system.hooks.url(HOOK_PATH));
    paste(&system.cluster, home.path(), &commands, STEP_TIMEOUT).await?;
    Ok(home)
}

/// A pod with the arguments of the documented `docker run`, and the root file system read-only.
fn pod(image: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "local",
                "image": image,
                "env": [{"name": "BASIC_AUTH_PASSWORD", "value": "trial"}],
                "securityContext": {
                    "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

/// Waits for the webhook of the API of uvr5-api, and checks the stem that its link names.
async fn check_webhook(system: &System, home: &TempDirectory) {
    eventually("the webhook", STEP_TIMEOUT, async || {
        let hooks = system.hooks.requests_to(HOOK_PATH);
        let body = hooks.last().context("none")?.json();
        ensure!(body["status"] == "success", "{body}");
        let stem = body["vocals"].as_str().unwrap_or_default();
        let name = stem.strip_prefix("http://localhost:9000/stems/");
        check_stem(&home.join(name.with_context(|| body.to_string())?))?;
        anyhow::Ok(true)
    })
    .await;
}

fn check_stem(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Stereo at 44.1 kHz and 16 bits.
    let is_complete = metadata.len() > SONG_SECONDS as u64 * 44_100 * 4;
    ensure!(is_complete, "{} is too short", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use separation_testbed::readme_block;

    use super::*;

    /// Its environment is that of [`pod`], and its ports are those of the pod's address.
    const DOCKER_RUN: &str = "docker run --detach --rm --name separation -p 127.0.0.1:8000:8000 -p 127.0.0.1:9000:9000 \\\n  \
                              -e BASIC_AUTH_PASSWORD=trial separation-local\n";

    #[test]
    fn the_readme_has_commands_of_the_document() {
        let start = documented_commands(LOCAL, START);
        assert!(start.contains(DOCKER_RUN), "{start}");
        let container = readme_block("docker run");
        assert!(
            start.starts_with(&container),
            "{container} is not the start of {start}"
        );
        assert_eq!(readme_block("/v1/tasks"), documented_commands(LOCAL, V1));
    }
}
