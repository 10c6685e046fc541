//! A pool with a namespace, topics and a bucket of its own, and tasks for it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use separation_contract::names;
use separation_testbed::{Pod, eventually, song, task_message};
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
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            partitions: 12,
            processors: 3,
            stabilization_seconds: 5,
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
}

/// What a pool is called in its namespace.
const NAME: &str = "vocals";

impl<'s> Pool<'s> {
    /// Makes namespace, topics and bucket, writes the pool and waits until the operator has taken it over.
    ///
    /// # Errors
    /// When a server refuses.
    pub async fn create(system: &'s System, namespace: &str, options: PoolOptions) -> Result<Self> {
        let pool = Self {
            system,
            namespace: namespace.to_owned(),
            options,
        };
        let cluster = &system.cluster;
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
        eventually("adoption of both groups", PATIENCE, async || {
            let status = pool.status().await?;
            let is_adopted = ["processor", "uploader"].map(|role| !status[role]["adoption"].is_null());
            ensure!(is_adopted == [true, true], "{status}");
            anyhow::Ok(true)
        })
        .await;
        Ok(pool)
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
        let path = format!(
            "/apis/separation.dev/v1alpha1/namespaces/{}/separationpools/{NAME}",
            self.namespace
        );
        Ok(self.system.cluster.get(&path).await?["status"].take())
    }

    /// Posts a song of so many seconds, unlike all others with another number; gives the task.
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
        cluster
            .kafka
            .publish(&self.task_topic(), &task, message, &[])
            .await?;
        Ok(task)
    }

    /// Waits until the receiver was told of all these tasks.
    pub async fn all_told(&self, tasks: &BTreeSet<String>) {
        eventually("every caller told", PATIENCE, async || {
            let told: BTreeSet<_> = self.webhooks().into_iter().map(|(task, _)| task).collect();
            let waiting: Vec<_> = tasks.difference(&told).collect();
            ensure!(waiting.is_empty(), "{waiting:?} are not told");
            anyhow::Ok(true)
        })
        .await;
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
        json!({
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
                    "topic": self.task_topic(),
                    "group": self.processor_group(),
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
        })
    }
}

/// Whether a pod is one of a pool's processors.
pub(crate) fn is_processor(pod: &Pod) -> bool {
    pod.name().starts_with(&format!("{NAME}-processor-"))
}
