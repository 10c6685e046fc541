//! Resources of one test for workers: topics, groups, a bucket and directories, shared with no other test.

use std::path::PathBuf;

use anyhow::{Context, Result};
use separation_contract::{environment as env, names};
use serde_json::{Value, json};

use crate::worker::WorkerOptions;
use crate::{Kafka, S3Server, TempDirectory, Uvr5Program};

/// Names and paths of one test.
#[derive(Debug)]
pub struct Site<'a> {
    /// The brokers.
    pub kafka: &'a Kafka,
    /// The S3 server.
    pub s3: &'a S3Server,
    /// Suffix of all names below.
    pub tag: String,
    /// Task topic; it also has a dead-letter topic.
    pub task_topic: String,
    /// Result topic; it also has a dead-letter topic.
    pub result_topic: String,
    /// Group of the processors.
    pub processor_group: String,
    /// Group of the uploaders.
    pub uploader_group: String,
    /// Bucket of finished stems.
    pub bucket: String,
    /// Directory of songs: `TEMP_DIR`.
    pub songs: PathBuf,
    /// Directory of staged stems: `OUTPUT_DIR`.
    pub stems: PathBuf,
    /// Directory of a worker's own files: `SCRATCH_DIR`.
    pub scratch: PathBuf,
    directory: TempDirectory,
}

impl<'a> Site<'a> {
    /// Creates the topics, with this number of partitions each, the bucket and the directories.
    ///
    /// # Errors
    /// If a server refuses.
    pub async fn new(kafka: &'a Kafka, s3: &'a S3Server, partitions: i32) -> Result<Self> {
        let tag = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        let directory = TempDirectory::new()?;
        let site = Self {
            kafka,
            s3,
            task_topic: format!("tasks-{tag}"),
            result_topic: format!("results-{tag}"),
            processor_group: format!("processors-{tag}"),
            uploader_group: format!("uploaders-{tag}"),
            bucket: format!("stems-{tag}"),
            songs: directory.subdirectory("songs")?,
            stems: directory.subdirectory("stems")?,
            scratch: directory.subdirectory("scratch")?,
            tag,
            directory,
        };
        for topic in [&site.task_topic, &site.result_topic] {
            kafka.create_topic(topic, partitions).await?;
            kafka.create_topic(&names::dead_letter_topic(topic), 1).await?;
        }
        s3.create_bucket(&site.bucket).await?;
        Ok(site)
    }

    /// Options of a worker in a role, configured for this site. Its session timeout is six seconds, and it
    /// starts without a delay after its assignment (`SETTLE_MS` is 0). Later settings override these.
    pub fn worker(&self, binary: &str, role: &str) -> WorkerOptions {
        WorkerOptions::new(binary, role).envs(self.environment())
    }

    /// A program of uvr5-api, configured for this site.
    ///
    /// # Errors
    /// If its Kafka client is not installed.
    pub fn uvr5_program(&self, program: Uvr5Program) -> Result<WorkerOptions> {
        Ok(program.options()?.envs(self.environment()))
    }

    /// Environment variables of any role.
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
            // Test receivers listen on loopback, which workers do not call by default.
            (env::OUTBOUND_ALLOW, "127.0.0.0/8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Writes a song where the API would put it, and returns the task's id and the song's path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_song(&self, song: &[u8]) -> Result<(String, PathBuf)> {
        let task = uuid::Uuid::new_v4().to_string();
        let path = self.songs.join(format!("{task}_input.wav"));
        std::fs::write(&path, song).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((task, path))
    }

    /// Writes a song and publishes its task as uvr5-api's API does; returns the task's id.
    ///
    /// # Errors
    /// If the song cannot be written or Kafka refuses.
    pub async fn submit(&self, song: &[u8], hook_url: &str) -> Result<String> {
        let (task, path) = self.put_song(song)?;
        let message = task_message(&task, &path.display().to_string(), hook_url);
        self.kafka
            .publish(&self.task_topic, &task, message.to_string(), &[])
            .await?;
        Ok(task)
    }

    /// A directory of this test, removed with it.
    pub fn directory(&self) -> &TempDirectory {
        &self.directory
    }
}

/// A task message as uvr5-api's API publishes it.
pub fn task_message(task: &str, audio_path: &str, hook_url: &str) -> Value {
    json!({
        "task_uuid": task,
        "audio_path": audio_path,
        "hook_url": hook_url,
        "timestamp": 1_763_683_200,
    })
}
