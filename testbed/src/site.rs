//! All that one test needs for workers: topics, groups, a bucket and folders that no other test uses.

use std::path::PathBuf;

use anyhow::{Context, Result};
use separation_contract::{environment as env, names};
use serde_json::{Value, json};

use crate::worker::WorkerOptions;
use crate::{Folder, Kafka, Peer, S3Server};

/// Names and places of one test.
#[derive(Debug)]
pub struct Site<'a> {
    /// The brokers.
    pub kafka: &'a Kafka,
    /// The S3 server.
    pub s3: &'a S3Server,
    /// What all names below end in.
    pub tag: String,
    /// Topic of tasks; its dead letters have a topic too.
    pub task_topic: String,
    /// Topic of results; its dead letters have a topic too.
    pub result_topic: String,
    /// Group of the processors.
    pub processor_group: String,
    /// Group of the uploaders.
    pub uploader_group: String,
    /// Bucket of finished stems.
    pub bucket: String,
    /// Folder of songs: `TEMP_DIR`.
    pub songs: PathBuf,
    /// Folder of staged stems: `OUTPUT_DIR`.
    pub stems: PathBuf,
    /// Folder for a worker's own files: `SCRATCH_DIR`.
    pub scratch: PathBuf,
    folder: Folder,
}

impl<'a> Site<'a> {
    /// Makes the topics, with so many partitions each, the bucket and the folders.
    ///
    /// # Errors
    /// When a server refuses.
    pub async fn new(kafka: &'a Kafka, s3: &'a S3Server, partitions: i32) -> Result<Self> {
        let tag = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        let folder = Folder::new()?;
        let site = Self {
            kafka,
            s3,
            task_topic: format!("tasks-{tag}"),
            result_topic: format!("results-{tag}"),
            processor_group: format!("processors-{tag}"),
            uploader_group: format!("uploaders-{tag}"),
            bucket: format!("stems-{tag}"),
            songs: folder.subfolder("songs")?,
            stems: folder.subfolder("stems")?,
            scratch: folder.subfolder("scratch")?,
            tag,
            folder,
        };
        for topic in [&site.task_topic, &site.result_topic] {
            kafka.create_topic(topic, partitions).await?;
            kafka.create_topic(&names::dead_letter_topic(topic), 1).await?;
        }
        s3.create_bucket(&site.bucket).await?;
        Ok(site)
    }

    /// A worker in a role, told of all this; a member killed is noticed after six seconds, and it starts without waiting
    /// for its assignment to settle. What is set after this counts instead.
    pub fn worker(&self, binary: &str, role: &str) -> WorkerOptions {
        WorkerOptions::new(binary, role).envs(self.environment())
    }

    /// A program of the existing system, told of all this.
    ///
    /// # Errors
    /// When its Kafka client is not installed.
    pub fn peer(&self, peer: Peer) -> Result<WorkerOptions> {
        Ok(peer.options()?.envs(self.environment()))
    }

    /// The environment of any role.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        [
            (env::KAFKA_BOOTSTRAP_SERVERS, self.kafka.bootstrap()),
            (env::KAFKA_TASK_TOPIC, self.task_topic.clone()),
            (env::KAFKA_RESULT_TOPIC, self.result_topic.clone()),
            (env::KAFKA_PROCESSOR_GROUP_ID, self.processor_group.clone()),
            (env::KAFKA_UPLOADER_GROUP_ID, self.uploader_group.clone()),
            (env::KAFKA_AUTO_OFFSET_RESET, "earliest".to_owned()),
            (env::KAFKA_SESSION_TIMEOUT_MS, "6000".to_owned()),
            (env::KAFKA_HEARTBEAT_INTERVAL_MS, "1000".to_owned()),
            (env::SETTLE_MS, "0".to_owned()),
            (env::S3_ENDPOINT_URL, self.s3.endpoint()),
            (env::AWS_ACCESS_KEY_ID, self.s3.access_key().to_owned()),
            (env::AWS_SECRET_ACCESS_KEY, self.s3.secret_key().to_owned()),
            (env::AWS_REGION, self.s3.region().to_owned()),
            (env::S3_BUCKET_NAME, self.bucket.clone()),
            (env::TEMP_DIR, path(&self.songs)),
            (env::OUTPUT_DIR, path(&self.stems)),
            (env::SCRATCH_DIR, path(&self.scratch)),
            // Receivers of tests listen on loopback, which workers do not call by default.
            (env::OUTBOUND_ALLOW, "127.0.0.0/8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Writes a song where the API would have put it and gives the task's name and the song's path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_song(&self, song: &[u8]) -> Result<(String, PathBuf)> {
        let task = uuid::Uuid::new_v4().to_string();
        let path = self.songs.join(format!("{task}_input.wav"));
        std::fs::write(&path, song).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((task, path))
    }

    /// Writes a song and publishes its task as the existing system's API does; gives the task's name.
    ///
    /// # Errors
    /// When the song cannot be written or Kafka refuses.
    pub async fn submit(&self, song: &[u8], hook_url: &str) -> Result<String> {
        let (task, path) = self.put_song(song)?;
        let message = task_message(&task, &path.display().to_string(), hook_url);
        self.kafka
            .publish(&self.task_topic, &task, message.to_string(), &[])
            .await?;
        Ok(task)
    }

    /// A folder of this test's own, gone with it.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// A task as the existing system's API publishes it.
pub fn task_message(task: &str, audio_path: &str, hook_url: &str) -> Value {
    json!({
        "task_uuid": task,
        "audio_path": audio_path,
        "hook_url": hook_url,
        "timestamp": 1_763_683_200,
    })
}
