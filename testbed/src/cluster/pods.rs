//! Pods and their history after deletion.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::background;
use crate::kubernetes::Client;

/// A pod at one point in time. Container fields are those of its first container; ours have only one.
#[derive(Debug, Clone)]
pub struct Pod {
    object: Value,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// The exit code; 137 if it was killed.
    pub exit_code: i64,
    /// The reason, in one word: `Completed`, `Error`, `OOMKilled` and so on.
    pub reason: String,
    /// Its termination message, if any.
    pub message: String,
}

pub(super) fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

impl Pod {
    pub(super) fn new(object: Value) -> Self {
        Self { object }
    }

    /// The complete object.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The unique id, which distinguishes pods of the same name.
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.object["metadata"]["labels"][name].as_str()
    }

    /// The phase: `Pending`, `Running`, `Succeeded` or `Failed`.
    pub fn phase(&self) -> &str {
        self.object["status"]["phase"].as_str().unwrap_or_default()
    }

    /// Whether its container is ready.
    pub fn is_ready(&self) -> bool {
        self.container()["ready"] == true
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        !self.object["metadata"]["deletionTimestamp"].is_null()
    }

    /// Restarts of its container.
    pub fn restarts(&self) -> u64 {
        self.container()["restartCount"].as_u64().unwrap_or_default()
    }

    /// How its container ended, if it did; for a restarted one, how the previous one ended.
    pub fn container_exit(&self) -> Option<ContainerExit> {
        let container = self.container();
        let ended = [
            &container["state"]["terminated"],
            &container["lastState"]["terminated"],
        ];
        let ended = ended.into_iter().find(|ended| !ended.is_null())?;
        let text = |name: &str| ended[name].as_str().unwrap_or_default().to_owned();
        Some(ContainerExit {
            exit_code: ended["exitCode"].as_i64()?,
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// The id of its container in containerd, if it has one.
    pub fn container_id(&self) -> Option<&str> {
        self.container()["containerID"]
            .as_str()?
            .strip_prefix("containerd://")
    }

    fn container(&self) -> &Value {
        &self.object["status"]["containerStatuses"][0]
    }
}

/// States of the pods of a namespace since the start of the watch.
#[derive(Debug)]
pub struct PodHistory {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
}

/// Keyed by pod uid.
type Pods = BTreeMap<String, ObservedPod>;

#[derive(Debug, Default)]
struct Shared {
    pods: Mutex<Pods>,
}

#[derive(Debug)]
struct ObservedPod {
    states: Vec<(Instant, Pod)>,
    is_deleted: bool,
}

impl PodHistory {
    pub(super) fn start(client: Client, namespace: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let watching = background::start(watch(client, path(namespace), Arc::clone(&shared)));
        Self { shared, watching }
    }

    /// All pods observed so far, in their latest state.
    pub fn all(&self) -> Vec<Pod> {
        self.select(|_| true)
    }

    /// Deleted pods in their last state: every container has ended.
    pub fn deleted(&self) -> Vec<Pod> {
        self.select(|observed| observed.is_deleted)
    }

    /// Pods that still exist.
    pub fn existing(&self) -> Vec<Pod> {
        self.select(|observed| !observed.is_deleted)
    }

    /// All observed states of one pod, with the time of each.
    pub fn states(&self, pod: &Pod) -> Vec<(Instant, Pod)> {
        let pods = self.shared.pods();
        pods.get(pod.uid())
            .map(|observed| observed.states.clone())
            .unwrap_or_default()
    }

    fn select(&self, is_selected: impl Fn(&ObservedPod) -> bool) -> Vec<Pod> {
        let pods = self.shared.pods();
        let selected = pods.values().filter(|observed| is_selected(observed));
        selected
            .filter_map(|observed| observed.states.last())
            .map(|(_, pod)| pod.clone())
            .collect()
    }
}

impl Drop for PodHistory {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Shared {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, pod: Value, is_deleted: bool) {
        let pod = Pod::new(pod);
        let mut pods = self.pods();
        let observed = pods.entry(pod.uid().to_owned()).or_insert_with(|| ObservedPod {
            states: Vec::new(),
            is_deleted: false,
        });
        observed.states.push((Instant::now(), pod));
        observed.is_deleted |= is_deleted;
    }

    /// A pod missing from the list was deleted between two watches.
    fn record_list(&self, listed: Vec<Value>) {
        let listed: Vec<_> = listed.into_iter().map(Pod::new).collect();
        for (uid, observed) in self.pods().iter_mut() {
            observed.is_deleted |= listed.iter().all(|pod| pod.uid() != uid);
        }
        for pod in listed {
            self.record(pod.object, false);
        }
    }
}

/// Watches through every disconnect. It misses nothing while the API server keeps its history.
async fn watch(client: Client, path: String, shared: Arc<Shared>) {
    let mut version = None;
    loop {
        if let Err(lost) = watch_from(&client, &path, &shared, &mut version).await {
            // The resource version is cleared if the server rejected it.
            tokio::time::sleep(crate::eventually::POLL).await;
            drop(lost);
        }
    }
}

async fn watch_from(
    client: &Client,
    path: &str,
    shared: &Shared,
    version: &mut Option<String>,
) -> Result<()> {
    let from = match version {
        Some(version) => version.clone(),
        None => {
            let mut listed = client.get(path).await?;
            let items = listed["items"].take();
            shared.record_list(items.as_array().cloned().unwrap_or_default());
            let listed_at = listed["metadata"]["resourceVersion"].as_str();
            version
                .insert(listed_at.context("a list has no version")?.to_owned())
                .clone()
        }
    };
    let query = format!("{path}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
    let mut lines = std::pin::pin!(client.lines(&query).await?);
    while let Some(line) = lines.next().await {
        let mut change: Value = serde_json::from_str(&line?)?;
        let (kind, object) = (change["type"].take(), change["object"].take());
        if kind == "ERROR" {
            *version = None;
            bail!("{}", object["message"]);
        }
        if let Some(now) = object["metadata"]["resourceVersion"].as_str() {
            *version = Some(now.to_owned());
        }
        if kind != "BOOKMARK" {
            shared.record(object, kind == "DELETED");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, status: &Value) -> Value {
        json!({"metadata": {"name": "name", "uid": uid}, "status": {"containerStatuses": [status]}})
    }

    #[test]
    fn the_exit_of_a_container_is_read_even_after_a_restart() {
        let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "words"}});
        let killed = Some(ContainerExit {
            exit_code: 137,
            reason: "OOMKilled".to_owned(),
            message: "words".to_owned(),
        });
        assert_eq!(
            Pod::new(pod("1", &json!({"state": ended}))).container_exit(),
            killed
        );
        let restarted = json!({"state": {"running": {}}, "lastState": ended, "restartCount": 1});
        let restarted = Pod::new(pod("1", &restarted));
        assert_eq!((restarted.container_exit(), restarted.restarts()), (killed, 1));
        assert_eq!(
            Pod::new(pod("1", &json!({"state": {"running": {}}}))).container_exit(),
            None
        );
    }

    #[test]
    fn a_pod_missing_from_the_list_counts_as_deleted() {
        let shared = Arc::new(Shared::default());
        shared.record(pod("1", &json!({})), false);
        shared.record(pod("2", &json!({})), false);
        shared.record_list(vec![pod("2", &json!({"ready": true}))]);
        shared.record(pod("3", &json!({})), true);
        let uids = |pods: Vec<Pod>| pods.iter().map(|pod| pod.uid().to_owned()).collect::<Vec<_>>();
        // Sends no request: there is no server.
        let history = PodHistory {
            shared,
            watching: background::start(async {}),
        };
        assert_eq!(uids(history.deleted()), ["1", "3"]);
        assert_eq!(uids(history.existing()), ["2"]);
        assert_eq!(history.states(&history.existing()[0]).len(), 2);
        assert!(history.existing()[0].is_ready());
    }
}
