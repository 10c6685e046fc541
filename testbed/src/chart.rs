//! The Helm chart: as Helm renders it, for which no cluster is asked, and as a release on a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::folder::Folder;
use crate::parts::Parts;
use crate::{Cluster, background, program};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/separation-operator");

/// Until all that a release has is ready.
const READY: &str = "--timeout=180s";

/// What the chart is installed as, as far as its text depends on it.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// The namespace that it is installed into.
    pub namespace: String,
    /// The chart's folder.
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

/// Copies the chart into a folder, with another definition of pools, as an older version's may have been.
///
/// # Errors
/// When a file cannot be read or written.
pub fn chart_with_definition(folder: &Folder, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let chart = folder.join("separation-operator");
    let mut copying = Command::new("cp");
    copying.arg("-r").arg(CHART).arg(&chart);
    program::output(copying, "")?;
    let file = chart.join("files/separationpools.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut definition: Value = serde_saphyr::from_str(&text).context("the definition is no YAML")?;
    change(&mut definition);
    // JSON is YAML.
    fs::write(&file, definition.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(chart)
}

impl Release {
    /// All objects, those of `helm test` too.
    ///
    /// # Errors
    /// What Helm says against these values.
    pub fn render(&self, values: &Value) -> Result<Vec<Value>> {
        let text = self.with_chart(&["template", &self.name], values)?;
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("helm printed no YAML:\n{text}"))?;
        Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// What Helm prints after an installation.
    ///
    /// # Errors
    /// What Helm says against these values.
    pub fn notes(&self, values: &Value) -> Result<String> {
        let printed = self.with_chart(&["install", &self.name, "--dry-run=client"], values)?;
        let (_, notes) = printed.split_once("NOTES:").context("Helm printed no notes")?;
        Ok(notes.to_owned())
    }

    /// What Helm's own checks say; warnings are errors.
    ///
    /// # Errors
    /// What they say against the chart or these values.
    pub fn lint(&self, values: &Value) -> Result<String> {
        self.with_chart(&["lint", "--strict"], values)
    }

    /// Installs it, or upgrades what is installed, and waits until all of it is ready; makes the namespace.
    ///
    /// # Errors
    /// What Helm says.
    pub async fn install(&self, cluster: &Cluster, values: &Value) -> Result<()> {
        let chart = self.chart.to_string_lossy();
        let arguments = ["upgrade", "--install", &self.name, &chart];
        let further = ["--create-namespace", "--wait", READY, "--values", "-"];
        let arguments = [&arguments[..], &further[..]].concat();
        self.on(cluster, &arguments, values.to_string()).await.map(drop)
    }

    /// Goes back to what was installed before, and waits until all of it is ready.
    ///
    /// # Errors
    /// What Helm says.
    pub async fn roll_back(&self, cluster: &Cluster) -> Result<()> {
        let arguments = ["rollback", &self.name, "--wait", READY];
        self.on(cluster, &arguments, String::new()).await.map(drop)
    }

    /// Removes it, and waits until that is done.
    ///
    /// # Errors
    /// What Helm says.
    pub async fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        let arguments = ["uninstall", &self.name, "--wait", READY];
        self.on(cluster, &arguments, String::new()).await.map(drop)
    }

    /// What its own tests print on the cluster.
    ///
    /// # Errors
    /// When one fails.
    pub async fn test(&self, cluster: &Cluster) -> Result<String> {
        let arguments = ["test", &self.name, "--logs", READY];
        self.on(cluster, &arguments, String::new()).await
    }

    fn with_chart(&self, arguments: &[&str], values: &Value) -> Result<String> {
        let chart = self.chart.to_string_lossy();
        let arguments = [arguments, &[&chart, "--values", "-"]].concat();
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

/// Without a kubeconfig no cluster is found.
fn helm(arguments: &[&str], namespace: &str, kubeconfig: Option<&Path>, input: &str) -> Result<String> {
    // Nobody's own settings, repositories and plugins.
    let home = Folder::new()?;
    let none = home.join("none");
    let mut helm = Command::new(Parts::helm()?);
    helm.args(arguments)
        .args(["--namespace", namespace])
        .env("HELM_CACHE_HOME", home.path())
        .env("HELM_CONFIG_HOME", home.path())
        .env("HELM_DATA_HOME", home.path())
        .env("KUBECONFIG", kubeconfig.unwrap_or(&none));
    program::output(helm, input)
}
