//! A pool with its own namespace, topics and bucket, and tasks for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use separation_contract::names;
use separation_testbed::{ContainerLog, Pod, PodHistory, eventually, song, task_message};
use serde_json::{Value, json};

use crate::{STEP_TIMEOUT, System};

/// Default prefix of songs and staged stems in the pool's bucket.
const STAGING: &str = "staging/";

/// Settings of a pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Partitions of the task topic and of the result topic.
    pub partitions: i32,
    /// `maxReplicas` of the processors.
    pub processors: u32,
    /// `stabilizationWindowSeconds`.
    pub stabilization_seconds: u32,
    /// Point in a task, named as in the worker's `faults`, where processors block while a [`Hold`] exists.
    pub held_at: Option<&'static str>,
    /// Further changes of its spec, as a merge patch (RFC 7396).
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

/// A pool of a system.
#[derive(Debug)]
pub struct Pool<'s> {
    pub(crate) system: &'s System,
    /// Its namespace, which is part of the names of topics, groups and the bucket.
    pub namespace: String,
    options: PoolOptions,
    /// Mounted into processors.
    directory: PathBuf,
}

/// While this exists, processors block at [`PoolOptions::held_at`].
#[derive(Debug)]
pub struct Hold {
    file: PathBuf,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // If the file cannot be removed, the test times out with a message.
        let _ = fs::remove_file(&self.file);
    }
}

/// Mount path of that directory in processors.
const MOUNT_PATH: &str = "/holds";
const HOLD: &str = "hold";

/// Log message of a held processor, in the middle of a task.
const HELD: &str = "Held";
/// Log message at the end of each task.
const STORED: &str = "Stems stored";

/// Name of the pool in its namespace.
const NAME: &str = "vocals";

impl<'s> Pool<'s> {
    /// Creates namespace, topics and bucket, applies the pool and waits until the operator manages it.
    ///
    /// # Errors
    /// If a server refuses.
    pub async fn create(system: &'s System, namespace: &str, options: PoolOptions) -> Result<Self> {
        let pool = Self::apply(system, namespace, options).await?;
        eventually("adoption of both groups", STEP_TIMEOUT, async || {
            let status = pool.status().await?;
            let is_adopted = ["processor", "uploader"].map(|role| !status[role]["offsets"].is_null());
            ensure!(is_adopted == [true, true], "{status}");
            anyhow::Ok(true)
        })
        .await;
        Ok(pool)
    }

    /// The same without waiting, for a pool that the operator may be unable to manage.
    ///
    /// # Errors
    /// If a server refuses.
    pub async fn apply(system: &'s System, namespace: &str, options: PoolOptions) -> Result<Self> {
        let cluster = &system.cluster;
        let directory = format!("holds-{namespace}");
        let pool = Self {
            system,
            namespace: namespace.to_owned(),
            options,
            directory: cluster.node.machine().directory().subdirectory(directory)?,
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
        let object = pool.object();
        let mut objects = vec![pool.namespace_object()];
        if !object["spec"]["storage"]["s3"]["credentialsSecretRef"].is_null() {
            objects.push(pool.secret());
        }
        objects.push(object);
        cluster.apply(&objects).await?;
        Ok(pool)
    }

    /// Changes the spec with a merge patch.
    ///
    /// # Errors
    /// The API server's rejection.
    pub async fn patch(&self, change: &Value) -> Result<()> {
        let patch = json!({"spec": change}).to_string();
        let cluster = &self.system.cluster;
        let arguments = ["patch", "separationpool", NAME, "--namespace", &self.namespace];
        let arguments = [&arguments[..], &["--type=merge", "--patch", &patch]].concat();
        cluster.kubectl(&arguments).await.map(drop)
    }

    /// Task topic.
    pub fn task_topic(&self) -> String {
        format!("{}-tasks", self.namespace)
    }

    /// Result topic.
    pub fn result_topic(&self) -> String {
        format!("{}-results", self.namespace)
    }

    /// Consumer group of the processors.
    pub fn processor_group(&self) -> String {
        format!("{}-processors", self.namespace)
    }

    /// Consumer group of the uploaders.
    pub fn uploader_group(&self) -> String {
        format!("{}-uploaders", self.namespace)
    }

    /// Bucket of finished and staged stems.
    pub fn bucket(&self) -> String {
        self.namespace.clone()
    }

    /// Path of this pool's webhooks at the receiver.
    pub fn hook(&self) -> String {
        format!("/{}", self.namespace)
    }

    /// The pool's status.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn status(&self) -> Result<Value> {
        Ok(self.get().await?["status"].take())
    }

    /// The spec, with the CRD's defaults.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn spec(&self) -> Result<Value> {
        Ok(self.get().await?["spec"].take())
    }

    async fn get(&self) -> Result<Value> {
        let path = format!(
            "/apis/separation.dev/v1beta1/namespaces/{}/separationpools/{NAME}",
            self.namespace
        );
        self.system.cluster.get(&path).await
    }

    /// Makes processors block from now on.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn hold(&self) -> Result<Hold> {
        let file = self.directory.join(HOLD);
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Hold { file })
    }

    /// Publishes a task with a song of this length, distinct for each number, and returns its id. Consecutive
    /// numbers use consecutive partitions.
    /// # Errors
    /// If S3 or Kafka refuses.
    pub async fn submit(&self, seconds: f32, number: u64) -> Result<String> {
        let task = self.stage(seconds, number).await?;
        self.publish(&task, number).await?;
        Ok(task)
    }

    /// Stores a song of this length for a task, distinct for each number, and returns the task's id.
    ///
    /// # Errors
    /// If S3 refuses.
    pub async fn stage(&self, seconds: f32, number: u64) -> Result<String> {
        let task = uuid::Uuid::new_v4().to_string();
        let s3 = &self.system.cluster.s3;
        s3.put(&self.bucket(), &input_key(&task), song(seconds, number))
            .await?;
        Ok(task)
    }

    /// Publishes a task whose song is stored. Consecutive numbers use consecutive partitions.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub async fn publish(&self, task: &str, number: u64) -> Result<()> {
        let input = format!("s3://{}/{}", self.bucket(), input_key(task));
        let hook = self.system.hooks.url(&self.hook());
        let message = task_message(task, &input, &hook).to_string();
        let partitions = u64::try_from(self.options.partitions).context("negative number of partitions")?;
        let partition = i32::try_from(number % partitions).context("too many partitions")?;
        let kafka = &self.system.cluster.kafka;
        kafka
            .publish_to(&self.task_topic(), partition, task, message)
            .await
            .map(drop)
    }

    /// Waits until the receiver has a webhook for each of these tasks.
    pub async fn wait_for_all_webhooks(&self, tasks: &BTreeSet<String>) {
        eventually("a webhook for every task", STEP_TIMEOUT, async || {
            let delivered = self.delivered_webhooks();
            let missing: Vec<_> = tasks.difference(&delivered).collect();
            ensure!(missing.is_empty(), "no webhook for {missing:?}");
            anyhow::Ok(true)
        })
        .await;
    }

    /// Waits until the receiver has webhooks for this many tasks.
    pub async fn wait_for_webhooks(&self, count: usize) {
        eventually(&format!("webhooks for {count} tasks"), STEP_TIMEOUT, async || {
            let delivered = self.delivered_webhooks().len();
            ensure!(delivered >= count, "{delivered} have one");
            anyhow::Ok(true)
        })
        .await;
    }

    /// Tasks whose webhook arrived.
    pub(crate) fn delivered_webhooks(&self) -> BTreeSet<String> {
        self.webhooks().into_iter().map(|(task, _)| task).collect()
    }

    /// Its existing processor pods.
    pub fn processors(&self, pods: &PodHistory) -> Vec<Pod> {
        let mut existing = pods.existing();
        existing.retain(is_processor);
        existing
    }

    /// Waits until this many processors are in the middle of a task, and returns their names.
    pub async fn busy_processors(&self, pods: &PodHistory, count: usize) -> Vec<String> {
        eventually(&format!("{count} busy processors"), STEP_TIMEOUT, async || {
            let mut busy = Vec::new();
            let existing = self.processors(pods);
            for log in self.logs()? {
                let lines = |text: &str| log.lines.iter().filter(|line| line.contains(text)).count();
                let exists = existing.iter().any(|pod| pod.name() == log.pod);
                if exists && lines(HELD) > lines(STORED) {
                    busy.push(log.pod);
                }
            }
            ensure!(busy.len() >= count, "only {busy:?}");
            anyhow::Ok(Some(busy))
        })
        .await
    }

    /// Waits until all pods are gone.
    pub async fn wait_until_no_pods(&self, pods: &PodHistory) {
        eventually("no pods again", STEP_TIMEOUT, async || {
            let existing: Vec<_> = pods.existing().iter().map(|pod| pod.name().to_owned()).collect();
            ensure!(existing.is_empty(), "{existing:?} exist");
            anyhow::Ok(true)
        })
        .await;
    }

    /// Complete log output of its pods, for a message.
    pub fn log_text(&self) -> String {
        let logs = match self.logs() {
            Ok(logs) => logs,
            Err(error) => return format!("{error:#}"),
        };
        logs.iter()
            .map(|log| format!("{}:\n{}\n", log.pod, log.lines.join("\n")))
            .collect()
    }

    /// Number of log lines of its pods that contain this text.
    ///
    /// # Errors
    /// If the logs cannot be read.
    pub fn log_lines_with(&self, text: &str) -> Result<usize> {
        let logs = self.logs()?;
        let lines = logs.iter().flat_map(|log| &log.lines);
        Ok(lines.filter(|line| line.contains(text)).count())
    }

    /// Waits until this many processors have logged this text, and returns their names.
    pub async fn processors_with_log(&self, text: &str, count: usize) -> Vec<String> {
        eventually(
            &format!("{count} processors with the log line: {text}"),
            STEP_TIMEOUT,
            async || {
                let mut names: Vec<_> = self
                    .logs()?
                    .into_iter()
                    .filter(|log| log.lines.iter().any(|line| line.contains(text)))
                    .map(|log| log.pod)
                    .collect();
                names.sort_unstable();
                names.dedup();
                ensure!(names.len() >= count, "only {names:?}");
                anyhow::Ok(Some(names))
            },
        )
        .await
    }

    /// Log output of its containers so far, including deleted ones.
    pub(crate) fn logs(&self) -> Result<Vec<ContainerLog>> {
        let mut logs = self.system.cluster.node.container_logs()?;
        logs.retain(|log| log.namespace == self.namespace);
        Ok(logs)
    }

    /// Task and `webhook-id` of every webhook that arrived.
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
        let scale_down = json!({"stabilizationWindowSeconds": self.options.stabilization_seconds});
        let mut object = json!({
            "apiVersion": "separation.dev/v1beta1",
            "kind": "SeparationPool",
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": {
                "kafka": {"bootstrapServers": cluster.kafka.bootstrap()},
                "storage": {
                    "s3": {
                        "endpoint": s3.endpoint(),
                        "region": s3.region(),
                        "credentialsSecretRef": {"name": "s3"},
                    },
                    "stems": {"bucket": self.bucket()},
                    "staging": {"s3": {}},
                },
                // The receiver has a private address.
                "egress": {"allowedPrivateHosts": [cluster.node.host_address()]},
                "processor": {
                    // Fast: the tests are about the system, not about separation.
                    "model": {"name": "builtin"},
                    "topic": self.task_topic(),
                    "consumerGroup": self.processor_group(),
                    // By default one core each, and a test machine may have only two.
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "env": self.variables(),
                    "podTemplate": self.pod_template(),
                    "scaling": {"maxReplicas": self.options.processors, "scaleDown": scale_down},
                },
                "uploader": {
                    "topic": self.result_topic(),
                    "consumerGroup": self.uploader_group(),
                    "scaling": {"maxReplicas": 1, "scaleDown": scale_down},
                },
            },
        });
        json_patch::merge(&mut object["spec"], &self.options.change);
        object
    }
}

impl Pool<'_> {
    fn variables(&self) -> Value {
        let Some(point) = self.options.held_at else {
            return json!([]);
        };
        json!([
            {"name": "SEPARATION_HOLD", "value": point},
            {"name": "SEPARATION_HOLD_WHILE", "value": format!("{MOUNT_PATH}/{HOLD}")},
        ])
    }

    fn pod_template(&self) -> Value {
        if self.options.held_at.is_none() {
            return json!({});
        }
        json!({"spec": {
            "containers": [{
                "name": "worker",
                "volumeMounts": [{"name": "holds", "mountPath": MOUNT_PATH, "readOnly": true}],
            }],
            "volumes": [{"name": "holds", "hostPath": {"path": self.directory, "type": "Directory"}}],
        }})
    }
}

/// Object key of a task's song.
fn input_key(task: &str) -> String {
    format!("{STAGING}inputs/{task}_input.wav")
}

/// Whether a pod is one of a pool's processors.
pub fn is_processor(pod: &Pod) -> bool {
    pod.name().starts_with(&format!("{NAME}-processor-"))
}
