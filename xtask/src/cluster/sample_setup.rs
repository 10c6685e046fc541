//! Chart values and a sample pool for the cluster of `cargo xtask cluster up`, with the addresses and
//! credentials of its Kafka and S3, and the chart's installation.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::daemon::ClusterState;
use crate::images::Image;
use crate::project::Project;
use crate::{cache, components, process};

const VALUES: &str = "values.yaml";
pub(super) const POOL: &str = "pool.yaml";
const CHART: &str = "charts/separation-operator";
const RELEASE: &str = "separation-operator";
pub(super) const NAMESPACE: &str = "separation-system";
/// Service of the chart's API.
pub(super) const API: &str = "separation-operator-api";
/// Namespace of the sample pool, followed by its name.
pub(super) const POOL_NAMESPACE: &str = "media";
pub(super) const POOL_NAME: &str = "vocals";
/// Path under cargo's target directory.
pub(super) const WORKER: &str = "debug/separation-worker";
/// Password of the chart's API, which only this machine can reach.
pub(super) const PASSWORD: &str = "trial";

/// The commands that install or upgrade the chart, in order; created by [`prepare`].
pub(super) struct Installation([Command; 2]);

impl Installation {
    /// Runs them against the cluster of this kubeconfig.
    pub(super) fn run(self, kubeconfig: &Path) -> Result<()> {
        for mut command in self.0 {
            process::run(command.env("KUBECONFIG", kubeconfig))?;
        }
        Ok(())
    }

    /// Prints them for the user to run.
    pub(super) fn explain(&self) {
        for command in &self.0 {
            println!("  {}", process::line(command));
        }
    }
}

/// Writes the chart's values for these images, and a sample pool.
pub(super) fn prepare(
    project: &Project,
    directory: &Path,
    state: &ClusterState,
    images: &[Image],
) -> Result<Installation> {
    let [kubectl, helm] = components::tools(project)?;
    let secrets = directory.join("secrets.yaml");
    let values_file = directory.join(VALUES);
    write(&secrets, &objects_of_release(state))?;
    write(&values_file, &values(state, images)?)?;
    write(&directory.join(POOL), &pool(state))?;
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

/// Imports the images into our own cluster, installs the chart, and writes a pool to apply.
pub(super) fn install(
    project: &Project,
    directory: &Path,
    state: &ClusterState,
    images: &[Image],
) -> Result<()> {
    let (Some(kubeconfig), Some((program, arguments))) = (&state.kubeconfig, state.import.split_first())
    else {
        bail!("images are not imported into an external cluster");
    };
    for image in images {
        let mut importing = project.command(program);
        importing.args(arguments).arg(&image.archive);
        process::run(&mut importing)?;
        println!("imported {} into the node", image.name);
    }
    prepare(project, directory, state, images)?.run(kubeconfig)
}

/// Prints what to try after the installation.
pub(super) fn explain(project: &Project, directory: &Path) {
    println!("\na pool, and songs for it:");
    println!("  kubectl apply -f {}", directory.join(POOL).display());
    println!("  kubectl -n {NAMESPACE} port-forward service/{API} 8000:80 &");
    println!(
        "  BASIC_AUTH_PASSWORD={PASSWORD} {} submit SONG… --output stems",
        project.target(WORKER).display()
    );
    println!("  kubectl -n {POOL_NAMESPACE} get separationpools,pods --watch");
}

/// The release's namespace, with the credentials of its API.
fn objects_of_release(state: &ClusterState) -> String {
    format!(
        "{}---
apiVersion: v1
kind: Secret
metadata: {{name: api, namespace: {NAMESPACE}}}
stringData: {{password: {PASSWORD}}}
",
        namespace_with_credentials(NAMESPACE, state)
    )
}

fn namespace_with_credentials(namespace: &str, state: &ClusterState) -> String {
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

/// Kafka and S3 settings shared by pools and the API, indented by this many spaces.
fn servers(state: &ClusterState, indent: usize) -> String {
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

fn values(state: &ClusterState, images: &[Image]) -> Result<String> {
    let mut text = String::new();
    let mut built = String::new();
    for image in images {
        let (repository, tag) = image.name.rsplit_once(':').context("an image without a tag")?;
        let image_values = format!("image: {{repository: {repository}, tag: {tag}}}\n");
        text.push_str(&if image.name.contains("operator") {
            image_values
        } else {
            format!("worker:\n  {image_values}")
        });
        built.push_str(&cache::sha256_file(&image.archive)?[..12]);
    }
    // The tag is the same for every build; changing this annotation replaces the pods.
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

fn pool(state: &ClusterState) -> String {
    format!(
        "{}---
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {{name: {POOL_NAME}, namespace: {POOL_NAMESPACE}}}
spec:
{}  processor:
    # Also process tasks that were published before the pool existed.
    autoOffsetReset: earliest
    scaling: {{maxReplicas: 3, scaleDownStabilizationSeconds: 10}}
  uploader:
    autoOffsetReset: earliest
    scaling: {{maxReplicas: 1, scaleDownStabilizationSeconds: 10}}
",
        namespace_with_credentials(POOL_NAMESPACE, state),
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
    fn a_pool_and_the_api_use_the_same_servers() {
        let state: ClusterState = serde_json::from_value(serde_json::json!({
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
