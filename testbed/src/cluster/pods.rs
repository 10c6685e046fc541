//! Pods, and what became of those that are gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::background;
use crate::kubernetes::Client;

/// A pod at some time. What is asked of a container is asked of its first, for ours have one.
#[derive(Debug, Clone)]
pub struct Pod {
    object: Value,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// 137 where it was killed.
    pub exit_code: i64,
    /// In one word: `Completed`, `Error`, `OOMKilled` and so on.
    pub reason: String,
    /// What it left as its last words, if any.
    pub message: String,
}

pub(super) fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

impl Pod {
    pub(super) fn new(object: Value) -> Self {
        Self { object }
    }

    /// All of it.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// What tells it from others of its name.
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// A label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.object["metadata"]["labels"][name].as_str()
    }

    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub fn phase(&self) -> &str {
        self.object["status"]["phase"].as_str().unwrap_or_default()
    }

    /// Whether it takes work.
    pub fn is_ready(&self) -> bool {
        self.container()["ready"] == true
    }

    /// Whether somebody asked it to end.
    pub fn is_told_to_end(&self) -> bool {
        !self.object["metadata"]["deletionTimestamp"].is_null()
    }

    /// How often its container was started again.
    pub fn restarts(&self) -> u64 {
        self.container()["restartCount"].as_u64().unwrap_or_default()
    }

    /// How its container ended, if it did; of one that was started again, how it ended before.
    pub fn ended(&self) -> Option<Ended> {
        let container = self.container();
        let ended = [
            &container["state"]["terminated"],
            &container["lastState"]["terminated"],
        ];
        let ended = ended.into_iter().find(|ended| !ended.is_null())?;
        let text = |name: &str| ended[name].as_str().unwrap_or_default().to_owned();
        Some(Ended {
            exit_code: ended["exitCode"].as_i64()?,
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// What containerd calls its container, if it has one.
    pub fn container_id(&self) -> Option<&str> {
        self.container()["containerID"]
            .as_str()?
            .strip_prefix("containerd://")
    }

    fn container(&self) -> &Value {
        &self.object["status"]["containerStatuses"][0]
    }
}

/// What became of the pods of a namespace, since it began.
#[derive(Debug)]
pub struct PodHistory {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
}

/// By what tells pods apart.
type Pods = BTreeMap<String, Seen>;

#[derive(Debug, Default)]
struct Shared {
    pods: Mutex<Pods>,
}

#[derive(Debug)]
struct Seen {
    states: Vec<(Instant, Pod)>,
    is_gone: bool,
}

impl PodHistory {
    pub(super) fn start(client: Client, namespace: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let watching = background::start(watch(client, path(namespace), Arc::clone(&shared)));
        Self { shared, watching }
    }

    /// All pods so far, as they are or as they were last.
    pub fn all(&self) -> Vec<Pod> {
        self.select(|_| true)
    }

    /// Those that are gone, as they were last: every container has ended.
    pub fn gone(&self) -> Vec<Pod> {
        self.select(|seen| seen.is_gone)
    }

    /// Those that are not gone.
    pub fn there(&self) -> Vec<Pod> {
        self.select(|seen| !seen.is_gone)
    }

    /// Everything that was seen of one pod, with the time when it was.
    pub fn states(&self, pod: &Pod) -> Vec<(Instant, Pod)> {
        let pods = self.shared.pods();
        pods.get(pod.uid())
            .map(|seen| seen.states.clone())
            .unwrap_or_default()
    }

    fn select(&self, is_wanted: impl Fn(&Seen) -> bool) -> Vec<Pod> {
        let pods = self.shared.pods();
        let wanted = pods.values().filter(|seen| is_wanted(seen));
        wanted
            .filter_map(|seen| seen.states.last())
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

    fn note(&self, pod: Value, is_gone: bool) {
        let pod = Pod::new(pod);
        let mut pods = self.pods();
        let seen = pods.entry(pod.uid().to_owned()).or_insert_with(|| Seen {
            states: Vec::new(),
            is_gone: false,
        });
        seen.states.push((Instant::now(), pod));
        seen.is_gone |= is_gone;
    }

    /// What is not listed any more has gone while nobody looked.
    fn note_list(&self, listed: Vec<Value>) {
        let listed: Vec<_> = listed.into_iter().map(Pod::new).collect();
        for (uid, seen) in self.pods().iter_mut() {
            seen.is_gone |= listed.iter().all(|pod| pod.uid() != uid);
        }
        for pod in listed {
            self.note(pod.object, false);
        }
    }
}

/// Goes on through every end of a connection, and misses nothing as long as the API server remembers.
async fn watch(client: Client, path: String, shared: Arc<Shared>) {
    let mut version = None;
    loop {
        if let Err(lost) = watch_from(&client, &path, &shared, &mut version).await {
            // The version is forgotten where it is what was refused.
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
            shared.note_list(items.as_array().cloned().unwrap_or_default());
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
            shared.note(object, kind == "DELETED");
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
    fn how_a_container_ended_is_read_also_when_it_runs_again() {
        let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "words"}});
        let killed = Some(Ended {
            exit_code: 137,
            reason: "OOMKilled".to_owned(),
            message: "words".to_owned(),
        });
        assert_eq!(Pod::new(pod("1", &json!({"state": ended}))).ended(), killed);
        let again = json!({"state": {"running": {}}, "lastState": ended, "restartCount": 1});
        let again = Pod::new(pod("1", &again));
        assert_eq!((again.ended(), again.restarts()), (killed, 1));
        assert_eq!(
            Pod::new(pod("1", &json!({"state": {"running": {}}}))).ended(),
            None
        );
    }

    #[test]
    fn what_goes_while_nobody_looks_is_gone() {
        let shared = Arc::new(Shared::default());
        shared.note(pod("1", &json!({})), false);
        shared.note(pod("2", &json!({})), false);
        shared.note_list(vec![pod("2", &json!({"ready": true}))]);
        shared.note(pod("3", &json!({})), true);
        let uids = |pods: Vec<Pod>| pods.iter().map(|pod| pod.uid().to_owned()).collect::<Vec<_>>();
        // Nothing is asked: there is no server.
        let history = PodHistory {
            shared,
            watching: background::start(async {}),
        };
        assert_eq!(uids(history.gone()), ["1", "3"]);
        assert_eq!(uids(history.there()), ["2"]);
        assert_eq!(history.states(&history.there()[0]).len(), 2);
        assert!(history.there()[0].is_ready());
    }
}
