//! kubectl, with all rights on a cluster.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Cluster;
use crate::{Components, background, program};

/// Timeout of a single request to the API server.
const REQUEST_TIMEOUT: &str = "--request-timeout=30s";

impl Cluster {
    /// Returns kubectl's output.
    ///
    /// # Errors
    /// Its error output, if it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, String::new()).await
    }

    /// Creates or updates objects with `kubectl apply`.
    ///
    /// # Errors
    /// The API server's rejection of one of them.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl_with(&["apply", "-f", "-"], list.to_string())
            .await
            .map(drop)
    }

    /// Evicts a pod with the Eviction API, as drains of a node do. Its containers have this time, in whole seconds, to
    /// stop.
    ///
    /// # Errors
    /// The API server's refusal, such as that of a PodDisruptionBudget.
    pub async fn evict(&self, namespace: &str, pod: &str, grace: Duration) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": {"gracePeriodSeconds": grace.as_secs()},
        });
        self.kubectl_with(&["create", "--raw", &path, "-f", "-"], eviction.to_string())
            .await
            .map(drop)
    }

    async fn kubectl_with(&self, arguments: &[&str], input: String) -> Result<String> {
        let mut command = Command::new(Components::kubectl()?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg(REQUEST_TIMEOUT)
            .args(arguments);
        background::blocking(move || program::output(command, &input)).await
    }
}
