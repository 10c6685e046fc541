//! The Helm chart: rendered without a cluster, and installed as a release on a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::components::Components;
use crate::temp_directory::TempDirectory;
use crate::{Cluster, background, program};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/separation-operator");

/// Timeout until all objects of a release are ready.
const READY: &str = "--timeout=180s";

/// Parameters of a release that its rendered text depends on.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// The namespace to install into.
    pub namespace: String,
    /// The chart's directory.
    pub chart: PathBuf,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            name: "separation-operator".to_owned(),
            namespace: "separation-system".to_owned(),
            chart: CHART.into(),
        }
    }
}

/// Copies a chart's directory into another one, and changes its CRD.
///
/// # Errors
/// If a file cannot be read or written.
pub fn chart_with_crd(
    original: &Path,
    directory: &TempDirectory,
    change: impl FnOnce(&mut Value),
) -> Result<PathBuf> {
    let chart = directory.join("chart");
    let mut copying = Command::new("cp");
    copying.arg("-r").arg(original).arg(&chart);
    program::output(copying, "")?;
    let file = chart.join("files/separationpools.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut crd: Value = serde_saphyr::from_str(&text).context("the CRD is not valid YAML")?;
    change(&mut crd);
    // JSON is also YAML.
    fs::write(&file, crd.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(chart)
}

/// Images for values that name none: the chart refuses those of its default values until the project has a registry.
fn images() -> Value {
    json!({
        "image": {"repository": "registry.test/separation-operator"},
        "worker": {"image": {"repository": "registry.test/separation-worker"}},
    })
}

impl Release {
    /// All rendered objects, including those of `helm test`. Values that name no images get images of a test registry.
    ///
    /// # Errors
    /// Helm's rejection of these values.
    pub fn render(&self, values: &Value) -> Result<Vec<Value>> {
        let text = self.with_chart(&["template", &self.name], values)?;
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("helm printed bad YAML:\n{text}"))?;
        Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// The notes that Helm prints after an installation, with images as in [`Self::render`].
    ///
    /// # Errors
    /// Helm's rejection of these values.
    pub fn notes(&self, values: &Value) -> Result<String> {
        let printed = self.with_chart(&["install", &self.name, "--dry-run=client"], values)?;
        let (_, notes) = printed.split_once("NOTES:").context("Helm printed no notes")?;
        Ok(notes.to_owned())
    }

    /// The output of `helm lint`, with images as in [`Self::render`]; warnings are errors.
    ///
    /// # Errors
    /// The defects that it finds in the chart or these values.
    pub fn lint(&self, values: &Value) -> Result<String> {
        self.with_chart(&["lint", "--strict"], values)
    }

    /// Installs or upgrades the release and waits until it is ready; creates the namespace.
    ///
    /// # Errors
    /// Helm's error.
    pub async fn install(&self, cluster: &Cluster, values: &Value) -> Result<()> {
        let chart = self.chart.to_string_lossy();
        let arguments = ["upgrade", "--install", &self.name, &chart];
        let further = ["--create-namespace", "--wait", READY, "--values", "-"];
        let arguments = [&arguments[..], &further[..]].concat();
        self.on(cluster, &arguments, values.to_string()).await.map(drop)
    }

    /// Rolls back to the previous revision and waits until it is ready.
    ///
    /// # Errors
    /// Helm's error.
    pub async fn roll_back(&self, cluster: &Cluster) -> Result<()> {
        let arguments = ["rollback", &self.name, "--wait", READY];
        self.on(cluster, &arguments, String::new()).await.map(drop)
    }

    /// Uninstalls the release and waits until that is done.
    ///
    /// # Errors
    /// Helm's error.
    pub async fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        let arguments = ["uninstall", &self.name, "--wait", READY];
        self.on(cluster, &arguments, String::new()).await.map(drop)
    }

    /// The output of the chart's own tests on the cluster.
    ///
    /// # Errors
    /// If a test fails.
    pub async fn test(&self, cluster: &Cluster) -> Result<String> {
        let arguments = ["test", &self.name, "--logs", READY];
        self.on(cluster, &arguments, String::new()).await
    }

    fn with_chart(&self, arguments: &[&str], values: &Value) -> Result<String> {
        let directory = TempDirectory::new()?;
        let file = directory.join("images.json");
        fs::write(&file, images().to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        let (chart, images) = (self.chart.to_string_lossy(), file.to_string_lossy());
        // Later values take precedence.
        let arguments = [arguments, &[&chart, "--values", &images, "--values", "-"]].concat();
        helm(&arguments, &self.namespace, None, &values.to_string())
    }

    async fn on(&self, cluster: &Cluster, arguments: &[&str], input: String) -> Result<String> {
        let arguments: Vec<_> = arguments.iter().map(|&word| word.to_owned()).collect();
        let namespace = self.namespace.clone();
        let kubeconfig = cluster.kubeconfig().to_owned();
        background::blocking(move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            helm(&arguments, &namespace, Some(&kubeconfig), &input)
        })
        .await
    }
}

/// Without a kubeconfig, no cluster can be reached.
fn helm(arguments: &[&str], namespace: &str, kubeconfig: Option<&Path>, input: &str) -> Result<String> {
    // Isolates Helm from the user's settings, repositories and plugins.
    let home = TempDirectory::new()?;
    let none = home.join("none");
    let mut helm = Command::new(Components::helm()?);
    helm.args(arguments)
        .args(["--namespace", namespace])
        .env("HELM_CACHE_HOME", home.path())
        .env("HELM_CONFIG_HOME", home.path())
        .env("HELM_DATA_HOME", home.path())
        .env("KUBECONFIG", kubeconfig.unwrap_or(&none));
    program::output(helm, input)
}
