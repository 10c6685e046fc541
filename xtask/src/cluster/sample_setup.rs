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
const NAMESPACE: &str = "separation-system";
/// Namespace of the sample pool, followed by its name, and the Deployment and Service of its API.
pub(super) const POOL_NAMESPACE: &str = "media";
pub(super) const POOL_NAME: &str = "vocals";
pub(super) const API: &str = "vocals-api";
/// Path under cargo's target directory.
pub(super) const WORKER: &str = "debug/separation-worker";
/// Password of the pool's API, which only this machine can reach.
pub(super) const PASSWORD: &str = "trial";

/// Writes the chart's values for these images, and a sample pool. Returns the command that installs or upgrades
/// the chart.
pub(super) fn prepare(
    project: &Project,
    directory: &Path,
    state: &ClusterState,
    images: &[Image],
) -> Result<Command> {
    let [_, helm] = components::tools(project)?;
    let values_file = directory.join(VALUES);
    let built = built(images)?;
    write(&values_file, &values(images, &built)?)?;
    write(&directory.join(POOL), &pool(state, &built))?;
    let mut installing = project.command(helm.join("helm"));
    installing
        .args(["upgrade", "--install", RELEASE])
        .arg(project.path(CHART))
        .args(["--namespace", NAMESPACE, "--create-namespace"])
        .args(["--wait", "--timeout=180s", "--values"])
        .arg(&values_file);
    Ok(installing)
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
    let mut installing = prepare(project, directory, state, images)?;
    process::run(installing.env("KUBECONFIG", kubeconfig))
}

/// Prints what to try after the installation.
pub(super) fn explain(project: &Project, directory: &Path) {
    println!("\na pool, and songs for it:");
    println!("  kubectl apply -f {}", directory.join(POOL).display());
    println!("  kubectl -n {POOL_NAMESPACE} rollout status deployment/{API}");
    println!("  kubectl -n {POOL_NAMESPACE} port-forward service/{API} 8000:80 &");
    println!(
        "  BASIC_AUTH_PASSWORD={PASSWORD} {} submit SONG… --output stems",
        project.target(WORKER).display()
    );
    println!("  kubectl -n {POOL_NAMESPACE} get separationpools,pods --watch");
}

/// Identifies the builds of these images: their tag is always the same.
fn built(images: &[Image]) -> Result<String> {
    let hashes = images
        .iter()
        .map(|image| Ok(cache::sha256_file(&image.archive)?[..12].to_owned()));
    hashes.collect()
}

fn values(images: &[Image], built: &str) -> Result<String> {
    let mut text = String::new();
    for image in images {
        let (repository, tag) = image.name.rsplit_once(':').context("an image without a tag")?;
        let image_values = format!("image: {{repository: {repository}, tag: {tag}}}\n");
        text.push_str(&if image.name.contains("operator") {
            image_values
        } else {
            format!("worker:\n  {image_values}")
        });
    }
    // Replaces the pods if the images changed.
    text.push_str(&format!("podAnnotations: {{images: \"{built}\"}}\n"));
    Ok(text)
}

/// The pool with its namespace and Secrets.
fn pool(state: &ClusterState, built: &str) -> String {
    let s3 = &state.s3;
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {POOL_NAMESPACE}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s3, namespace: {POOL_NAMESPACE}}}
stringData: {{AWS_ACCESS_KEY_ID: {}, AWS_SECRET_ACCESS_KEY: {}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: api, namespace: {POOL_NAMESPACE}}}
stringData: {{username: admin, password: {PASSWORD}}}
---
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: {POOL_NAME}, namespace: {POOL_NAMESPACE}}}
spec:
  kafka:
    bootstrapServers: {}
  storage:
    s3:
      endpoint: {}
      region: {}
      credentialsSecretRef: {{name: s3}}
    stems: {{bucket: {}}}
    staging: {{s3: {{}}}}
  processor:
    # By default two cores each, and the node may have only two.
    resources: {{requests: {{cpu: 500m, memory: 512Mi}}}}
    scaling: {{maxReplicas: 3, scaleDown: {{stabilizationWindowSeconds: 10}}}}
  uploader:
    scaling: {{maxReplicas: 1, scaleDown: {{stabilizationWindowSeconds: 10}}}}
  api:
    basicAuthSecretRef: {{name: api}}
    replicas: 1
    # Replaces the pod if the images changed.
    podTemplate: {{metadata: {{annotations: {{images: \"{built}\"}}}}}}
",
        s3.access_key, s3.secret_key, state.kafka, s3.endpoint, s3.region, s3.bucket
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_gets_the_images_and_the_pool_the_servers() {
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
        let built = built(&images).unwrap();
        assert_eq!(built.len(), 24);
        let values = values(&images, &built).unwrap();
        let expected = "worker:\n  image: {repository: localhost/separation-worker, tag: dev}\nimage: {";
        assert!(values.starts_with(expected), "{values}");
        let pool = pool(&state, &built);
        for text in [
            "  kafka:\n    bootstrapServers: 10.123.7.1:12000\n  storage:\n",
            "endpoint: http://10.123.7.1:12001\n",
            "region: r\n",
            "stems: {bucket: b}",
        ] {
            assert!(pool.contains(text), "{text} is not in {pool}");
        }
        for text in [values, pool] {
            assert!(text.contains(&format!("images: \"{built}\"")), "{text}");
        }
    }
}
