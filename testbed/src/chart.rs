//! The Helm chart as Helm renders it. Nothing is installed, and no cluster is asked.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::folder::Folder;
use crate::parts::Parts;

/// What the chart is installed as, as far as its text depends on it.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// The namespace that it is installed into.
    pub namespace: String,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            name: "separation-operator".to_owned(),
            namespace: "separation-system".to_owned(),
        }
    }
}

impl Release {
    /// All objects, those of `helm test` too.
    ///
    /// # Errors
    /// What Helm says against these values.
    pub fn render(&self, values: &Value) -> Result<Vec<Value>> {
        let text = helm(&["template", &self.name], &self.namespace, values)?;
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("helm printed no YAML:\n{text}"))?;
        Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// What Helm prints after an installation.
    ///
    /// # Errors
    /// What Helm says against these values.
    pub fn notes(&self, values: &Value) -> Result<String> {
        let printed = helm(
            &["install", &self.name, "--dry-run=client"],
            &self.namespace,
            values,
        )?;
        let (_, notes) = printed.split_once("NOTES:").context("Helm printed no notes")?;
        Ok(notes.to_owned())
    }

    /// What Helm's own checks say; warnings are errors.
    ///
    /// # Errors
    /// What they say against the chart or these values.
    pub fn lint(&self, values: &Value) -> Result<String> {
        helm(&["lint", "--strict"], &self.namespace, values)
    }
}

fn helm(arguments: &[&str], namespace: &str, values: &Value) -> Result<String> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/separation-operator");
    // Nobody's own settings, repositories and plugins.
    let home = Folder::new()?;
    let mut helm = Command::new(Parts::helm()?)
        .args(arguments)
        .arg(&chart)
        .args(["--namespace", namespace, "--values", "-"])
        .env("HELM_CACHE_HOME", home.path())
        .env("HELM_CONFIG_HOME", home.path())
        .env("HELM_DATA_HOME", home.path())
        .env("KUBECONFIG", home.path().join("none"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start helm")?;
    let mut input = helm.stdin.take().context("helm has no standard input")?;
    input
        .write_all(values.to_string().as_bytes())
        .context("helm does not read its values")?;
    drop(input);
    let output = helm.wait_with_output().context("cannot wait for helm")?;
    let printed = String::from_utf8(output.stdout).context("helm printed no text")?;
    ensure!(
        output.status.success(),
        "{}{printed}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}
