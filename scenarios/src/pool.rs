//! A pool with a namespace, topics and a bucket of its own, and tasks for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use separation_contract::names;
use separation_testbed::{ContainerLog, Pod, PodHistory, eventually, song, task_message};
use serde_json::{Value, json};

use crate::{PATIENCE, System};

/// Where songs and stems wait, in the pool's bucket.
const STAGING: &str = "staging/";

/// How a pool is to be.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Of the topic of tasks, and of that of results.
    pub partitions: i32,
    /// Processors at most.
    pub processors: u32,
    /// How long fewer workers must be enough before there are fewer.
    pub stabilization_seconds: u32,
    /// Where in a task, as the worker's `faults` names its places, processors wait while there is a [`Hold`].
    pub held_at: Option<&'static str>,
    /// What is otherwise in its specification, as a merge patch (RFC 7396).
    pub change: Value,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            partitions: 12,
            processors: 3,
            stabilization_seconds: 5,
            held_at: None,
            change: json!({}),
        }
    }
}

/// A pool on a system.
#[derive(Debug)]
pub struct Pool<'s> {
    pub(crate) system: &'s System,
    /// Its namespace; topics, groups and the bucket are named after it.
    pub namespace: String,
    options: PoolOptions,
    /// Shown to processors.
    folder: PathBuf,
}

/// As long as it is there, processors wait where [`PoolOptions::held_at`] says.
#[derive(Debug)]
pub struct Hold {
    file: PathBuf,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Where it cannot be removed, the test waits in vain and says so.
        let _ = fs::remove_file(&self.file);
    }
}

/// Where processors find the folder that is shown to them.
const SHOWN: &str = "/holds";
const HOLD: &str = "hold";

/// What processors say where they may be held, in the middle of each task.
const HELD: &str = "Held";
/// What they say at the end of each.
const STORED: &str = "Stems stored";

/// What a pool is called in its namespace.
const NAME: &str = "vocals";

impl<'s> Pool<'s> {
    /// Makes namespace, topics and bucket, writes the pool and waits until the operator has taken it over.
    ///
    /// # Errors
    /// When a server refuses.
    pub async fn create(system: &'s System, namespace: &str, options: PoolOptions) -> Result<Self> {
        let pool = Self::apply(system, namespace, options).await?;
        eventually("adoption of both groups", PATIENCE, async || {
            let status = pool.status().await?;
            let is_adopted = ["processor", "uploader"].map(|role| !status[role]["adoption"].is_null());
            ensure!(is_adopted == [true, true], "{status}");
            anyhow::Ok(true)
        })
        .await;
        Ok(pool)
    }

    /// The same for a pool that the operator may not be able to take over.
    ///
    /// # Errors
    /// When a server refuses.
    pub async fn apply(system: &'s System, namespace: &str, options: PoolOptions) -> Result<Self> {
        let cluster = &system.cluster;
        let folder = format!("holds-{namespace}");
        let pool = Self {
            system,
            namespace: namespace.to_owned(),
            options,
            folder: cluster.node.machine().folder().subfolder(folder)?,
        };
        for topic in [pool.task_topic(), pool.result_topic()] {
            cluster
                .kafka
                .create_topic(&topic, pool.options.partitions)
                .await?;
            let dead_letters = names::dead_letter_topic(&topic);
            cluster.kafka.create_topic(&dead_letters, 1).await?;
        }
        cluster.s3.create_bucket(&pool.bucket()).await?;
        let objects = [pool.namespace_object(), pool.secret(), pool.object()];
        cluster.apply(&objects).await?;
        Ok(pool)
    }

    /// Changes its specification, by a merge patch.
    ///
    /// # Errors
    /// What the API server says against it.
    pub async fn patch(&self, change: &Value) -> Result<()> {
        let patch = json!({"spec": change}).to_string();
        let cluster = &self.system.cluster;
        let arguments = ["patch", "separationpool", NAME, "--namespace", &self.namespace];
        let arguments = [&arguments[..], &["--type=merge", "--patch", &patch]].concat();
        cluster.kubectl(&arguments).await.map(drop)
    }

    /// Topic of tasks.
    pub fn task_topic(&self) -> String {
        format!("{}-tasks", self.namespace)
    }

    /// Topic of results.
    pub fn result_topic(&self) -> String {
        format!("{}-results", self.namespace)
    }

    /// Group of processors.
    pub fn processor_group(&self) -> String {
        format!("{}-processors", self.namespace)
    }

    /// Group of uploaders.
    pub fn uploader_group(&self) -> String {
        format!("{}-uploaders", self.namespace)
    }

    /// Bucket of finished stems, and of what waits.
    pub fn bucket(&self) -> String {
        self.namespace.clone()
    }

    /// Path of this pool's webhooks at the receiver.
    pub fn hook(&self) -> String {
        format!("/{}", self.namespace)
    }

    /// What the operator says of it.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn status(&self) -> Result<Value> {
        Ok(self.get().await?["status"].take())
    }

    /// Its specification, with the definition's defaults.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn spec(&self) -> Result<Value> {
        Ok(self.get().await?["spec"].take())
    }

    async fn get(&self) -> Result<Value> {
        let path = format!(
            "/apis/separation.dev/v1alpha1/namespaces/{}/separationpools/{NAME}",
            self.namespace
        );
        self.system.cluster.get(&path).await
    }

    /// Has processors wait, from now on.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn hold(&self) -> Result<Hold> {
        let file = self.folder.join(HOLD);
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Hold { file })
    }

    /// Posts a song of so many seconds, unlike all others with another number; gives the task. Numbers one after the
    /// other go to partitions one after the other.
    ///
    /// # Errors
    /// When S3 or Kafka refuses.
    pub async fn submit(&self, seconds: f32, number: u64) -> Result<String> {
        let task = uuid::Uuid::new_v4().to_string();
        let key = format!("{STAGING}inputs/{task}_input.wav");
        let cluster = &self.system.cluster;
        let bucket = self.bucket();
        cluster.s3.put(&bucket, &key, song(seconds, number)).await?;
        let hook = self.system.hooks.url(&self.hook());
        let message = task_message(&task, &format!("s3://{bucket}/{key}"), &hook).to_string();
        let partitions = u64::try_from(self.options.partitions).context("fewer partitions than none")?;
        let partition = i32::try_from(number % partitions).context("too many partitions")?;
        let topic = self.task_topic();
        cluster
            .kafka
            .publish_to(&topic, partition, &task, message)
            .await?;
        Ok(task)
    }

    /// Waits until the receiver was told of all these tasks.
    pub async fn all_told(&self, tasks: &BTreeSet<String>) {
        eventually("every caller told", PATIENCE, async || {
            let told = self.told();
            let waiting: Vec<_> = tasks.difference(&told).collect();
            ensure!(waiting.is_empty(), "{waiting:?} are not told");
            anyhow::Ok(true)
        })
        .await;
    }

    /// Waits until the receiver was told of so many tasks.
    pub async fn some_told(&self, count: usize) {
        eventually(&format!("{count} callers told"), PATIENCE, async || {
            let told = self.told().len();
            ensure!(told >= count, "{told} are told");
            anyhow::Ok(true)
        })
        .await;
    }

    /// The tasks whose callers were told.
    pub(crate) fn told(&self) -> BTreeSet<String> {
        self.webhooks().into_iter().map(|(task, _)| task).collect()
    }

    /// Its processors that are there.
    pub fn processors(&self, pods: &PodHistory) -> Vec<Pod> {
        let mut there = pods.there();
        there.retain(is_processor);
        there
    }

    /// Waits until so many processors are in the middle of a task, and gives their names.
    pub async fn busy_processors(&self, pods: &PodHistory, count: usize) -> Vec<String> {
        eventually(&format!("{count} busy processors"), PATIENCE, async || {
            let mut busy = Vec::new();
            let there = self.processors(pods);
            for log in self.logs()? {
                let lines = |words: &str| log.lines.iter().filter(|line| line.contains(words)).count();
                let is_there = there.iter().any(|pod| pod.name() == log.pod);
                if is_there && lines(HELD) > lines(STORED) {
                    busy.push(log.pod);
                }
            }
            ensure!(busy.len() >= count, "only {busy:?}");
            anyhow::Ok(Some(busy))
        })
        .await
    }

    /// Waits until all pods are gone.
    pub async fn no_pods(&self, pods: &PodHistory) {
        eventually("no pods again", PATIENCE, async || {
            let there: Vec<_> = pods.there().iter().map(|pod| pod.name().to_owned()).collect();
            ensure!(there.is_empty(), "{there:?} are there");
            anyhow::Ok(true)
        })
        .await;
    }

    /// All that its pods printed, for a message.
    pub fn log_text(&self) -> String {
        let logs = match self.logs() {
            Ok(logs) => logs,
            Err(error) => return format!("{error:#}"),
        };
        logs.iter()
            .map(|log| format!("{}:\n{}\n", log.pod, log.lines.join("\n")))
            .collect()
    }

    /// How many lines of its pods' logs have these words.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub fn lines_saying(&self, words: &str) -> Result<usize> {
        let logs = self.logs()?;
        let lines = logs.iter().flat_map(|log| &log.lines);
        Ok(lines.filter(|line| line.contains(words)).count())
    }

    /// Waits until so many processors have said something, and gives their names.
    pub async fn processors_saying(&self, words: &str, count: usize) -> Vec<String> {
        eventually(
            &format!("{count} processors that say: {words}"),
            PATIENCE,
            async || {
                let mut said: Vec<_> = self
                    .logs()?
                    .into_iter()
                    .filter(|log| log.lines.iter().any(|line| line.contains(words)))
                    .map(|log| log.pod)
                    .collect();
                said.sort_unstable();
                said.dedup();
                ensure!(said.len() >= count, "only {said:?}");
                anyhow::Ok(Some(said))
            },
        )
        .await
    }

    /// What the containers of its pods printed so far, also of those that are gone.
    pub(crate) fn logs(&self) -> Result<Vec<ContainerLog>> {
        let mut logs = self.system.cluster.node.container_logs()?;
        logs.retain(|log| log.namespace == self.namespace);
        Ok(logs)
    }

    /// The task and the id of every webhook that arrived.
    pub(crate) fn webhooks(&self) -> Vec<(String, String)> {
        let requests = self.system.hooks.requests_to(&self.hook());
        let read = requests.iter().map(|request| {
            let task = request.json()["task_uuid"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            (task, request.header("webhook-id").unwrap_or_default().to_owned())
        });
        read.collect()
    }

    fn namespace_object(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
    }

    fn secret(&self) -> Value {
        let s3 = &self.system.cluster.s3;
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3", "namespace": self.namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": s3.access_key(), "AWS_SECRET_ACCESS_KEY": s3.secret_key()},
        })
    }

    fn object(&self) -> Value {
        let cluster = &self.system.cluster;
        let s3 = &cluster.s3;
        let stabilization = self.options.stabilization_seconds;
        let mut object = json!({
            "apiVersion": "separation.dev/v1alpha1",
            "kind": "SeparationPool",
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": {
                "kafka": {"bootstrapServers": cluster.kafka.bootstrap()},
                "storage": {
                    "s3": {
                        "bucket": self.bucket(),
                        "endpoint": s3.endpoint(),
                        "region": s3.region(),
                        "pathStyle": true,
                        "secretRef": {"name": "s3"},
                    },
                    "work": {"s3Prefix": STAGING},
                },
                // The receiver's address is a private one.
                "outbound": {"allow": [cluster.node.host_address()]},
                "processor": {
                    // Tasks may be there before the pool is taken over.
                    "autoOffsetReset": "earliest",
                    "topic": self.task_topic(),
                    "group": self.processor_group(),
                    "podOverrides": self.overrides(),
                    "scaling": {
                        "maxReplicas": self.options.processors,
                        "scaleDownStabilizationSeconds": stabilization,
                    },
                },
                "uploader": {
                    "topic": self.result_topic(),
                    "group": self.uploader_group(),
                    "scaling": {"maxReplicas": 1, "scaleDownStabilizationSeconds": stabilization},
                },
            },
        });
        json_patch::merge(&mut object["spec"], &self.options.change);
        object
    }
}

impl Pool<'_> {
    fn overrides(&self) -> Value {
        let Some(place) = self.options.held_at else {
            return json!({});
        };
        let variable = |name: &str, value: String| json!({"name": name, "value": value});
        json!({"spec": {
            "containers": [{
                "name": "worker",
                "env": [
                    variable("SEPARATION_HOLD", place.to_owned()),
                    variable("SEPARATION_HOLD_WHILE", format!("{SHOWN}/{HOLD}")),
                ],
                "volumeMounts": [{"name": "holds", "mountPath": SHOWN, "readOnly": true}],
            }],
            "volumes": [{"name": "holds", "hostPath": {"path": self.folder, "type": "Directory"}}],
        }})
    }
}

/// Whether a pod is one of a pool's processors.
pub fn is_processor(pod: &Pod) -> bool {
    pod.name().starts_with(&format!("{NAME}-processor-"))
}
