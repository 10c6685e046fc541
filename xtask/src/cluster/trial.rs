//! What one tries out on the cluster of `cargo xtask cluster up`: the chart's values and a pool, with the addresses and
//! keys of that cluster's Kafka and S3, and the chart's installation.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::held::State;
use crate::images::Image;
use crate::project::Project;
use crate::{cache, parts, process};

const VALUES: &str = "values.yaml";
pub(super) const POOL: &str = "pool.yaml";
const CHART: &str = "charts/separation-operator";
const RELEASE: &str = "separation-operator";
pub(super) const NAMESPACE: &str = "separation-system";
/// Service of the chart's API.
pub(super) const API: &str = "separation-operator-api";
/// Of the pool, and the pool.
pub(super) const POOL_NAMESPACE: &str = "media";
pub(super) const POOL_NAME: &str = "vocals";
/// Under cargo's target directory.
pub(super) const WORKER: &str = "debug/separation-worker";
/// For the chart's API; nobody but this machine reaches it.
pub(super) const PASSWORD: &str = "trial";

/// What it takes to install the chart, or to upgrade it, one after the other; made by [`prepare`].
pub(super) struct Installation([Command; 2]);

impl Installation {
    /// In the cluster of this kubeconfig.
    pub(super) fn run(self, kubeconfig: &Path) -> Result<()> {
        for mut command in self.0 {
            process::run(command.env("KUBECONFIG", kubeconfig))?;
        }
        Ok(())
    }

    /// For somebody who types it.
    pub(super) fn explain(&self) {
        for command in &self.0 {
            println!("  {}", process::line(command));
        }
    }
}

/// Writes the chart's values for these images, and a pool to apply.
pub(super) fn prepare(
    project: &Project,
    folder: &Path,
    state: &State,
    images: &[Image],
) -> Result<Installation> {
    let [kubectl, helm] = parts::tools(project)?;
    let secrets = folder.join("secrets.yaml");
    let values_file = folder.join(VALUES);
    write(&secrets, &objects_of_release(state))?;
    write(&values_file, &values(state, images)?)?;
    write(&folder.join(POOL), &pool(state))?;
    let mut applying = project.command(kubectl.join("kubectl"));
    applying.args(["apply", "-f"]).arg(&secrets);
    let mut installing = project.command(helm.join("helm"));
    installing
        .args(["upgrade", "--install", RELEASE])
        .arg(project.path(CHART))
        .args(["--namespace", NAMESPACE, "--wait", "--timeout=180s", "--values"])
        .arg(&values_file);
    Ok(Installation([applying, installing]))
}

/// Says what one can do when the chart is installed.
pub(super) fn explain(project: &Project, folder: &Path) {
    println!("\na pool, and songs for it:");
    println!("  kubectl apply -f {}", folder.join(POOL).display());
    println!("  kubectl -n {NAMESPACE} port-forward service/{API} 8000:80 &");
    println!(
        "  BASIC_AUTH_PASSWORD={PASSWORD} {} submit SONG… --output stems",
        project.target(WORKER).display()
    );
    println!("  kubectl -n {POOL_NAMESPACE} get separationpools,pods --watch");
}

/// The release's namespace, with what its API logs in with.
fn objects_of_release(state: &State) -> String {
    format!(
        "{}---
apiVersion: v1
kind: Secret
metadata: {{name: api, namespace: {NAMESPACE}}}
stringData: {{password: {PASSWORD}}}
",
        namespace_with_keys(NAMESPACE, state)
    )
}

fn namespace_with_keys(namespace: &str, state: &State) -> String {
    let s3 = &state.s3;
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s3, namespace: {namespace}}}
stringData: {{AWS_ACCESS_KEY_ID: {}, AWS_SECRET_ACCESS_KEY: {}}}
",
        s3.access_key, s3.secret_key
    )
}

/// What a pool and the API both say of Kafka and S3, indented by so many spaces.
fn servers(state: &State, indent: usize) -> String {
    let s3 = &state.s3;
    let text = format!(
        "kafka:
  bootstrapServers: {}
storage:
  s3:
    bucket: {}
    endpoint: {}
    region: {}
    pathStyle: true
    secretRef: {{name: s3}}
  work: {{s3Prefix: staging/}}
",
        state.kafka, s3.bucket, s3.endpoint, s3.region
    );
    let lines = text.lines().map(|line| format!("{:indent$}{line}\n", ""));
    lines.collect()
}

fn values(state: &State, images: &[Image]) -> Result<String> {
    let mut text = String::new();
    let mut built = String::new();
    for image in images {
        let (repository, tag) = image.name.rsplit_once(':').context("an image without a tag")?;
        let said = format!("image: {{repository: {repository}, tag: {tag}}}\n");
        text.push_str(&if image.name.contains("operator") {
            said
        } else {
            format!("worker:\n  {said}")
        });
        built.push_str(&cache::sha256_file(&image.archive)?[..12]);
    }
    // The tag stays the same when other programs are in the images: by this pods are replaced all the same.
    text.push_str(&format!(
        "podAnnotations: {{separation.dev/images: \"{built}\"}}\n"
    ));
    text.push_str(&format!(
        "api:\n  enabled: true\n  replicas: 1\n  podAnnotations: {{separation.dev/images: \"{built}\"}}\n  \
         auth: {{secretRef: {{name: api}}}}\n{}",
        servers(state, 2)
    ));
    Ok(text)
}

fn pool(state: &State) -> String {
    format!(
        "{}---
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {{name: {POOL_NAME}, namespace: {POOL_NAMESPACE}}}
spec:
{}  processor:
    # What was posted before the pool was there is worked on too.
    autoOffsetReset: earliest
    scaling: {{maxReplicas: 3, scaleDownStabilizationSeconds: 10}}
  uploader:
    autoOffsetReset: earliest
    scaling: {{maxReplicas: 1, scaleDownStabilizationSeconds: 10}}
",
        namespace_with_keys(POOL_NAMESPACE, state),
        servers(state, 2)
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_and_the_api_are_told_the_same_servers() {
        let state: State = serde_json::from_value(serde_json::json!({
            "pid": 1,
            "kafka": "10.123.7.1:12000",
            "s3": {"endpoint": "http://10.123.7.1:12001", "region": "r", "bucket": "b", "accessKey": "a", "secretKey": "s"},
            "kubeconfig": null,
            "import": [],
        }))
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let images = ["worker", "operator"].map(|program| {
            let archive = dir.path().join(program);
            fs::write(&archive, program).unwrap();
            Image {
                name: format!("localhost/separation-{program}:dev"),
                archive,
            }
        });
        let values = values(&state, &images).unwrap();
        let expected = "worker:\n  image: {repository: localhost/separation-worker, tag: dev}\nimage: {";
        assert!(values.starts_with(expected), "{values}");
        let servers = servers(&state, 2);
        assert!(servers.starts_with("  kafka:\n    bootstrapServers: 10.123.7.1:12000\n  storage:\n"));
        assert!(values.ends_with(&servers), "{values}");
        assert!(pool(&state).contains(&servers), "{}", pool(&state));
    }
}
