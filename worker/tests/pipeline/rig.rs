//! A site with processors, uploaders and a receiver of webhooks, and what is to be true of it in the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use separation_contract::environment as env;
use separation_contract::names::dead_letter_topic;
use separation_testbed::{
    Folder, Kafka, Receiver, Record, S3Server, Site, Worker, WorkerOptions, eventually, task_message,
    tiny_song,
};
use serde_json::Value;

/// What any step is waited for; a loaded machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The program under test.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_separation-worker");

/// The folder of test models.
pub(crate) const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Everything that a test of the pipeline needs.
pub(crate) struct Rig {
    pub(crate) kafka: &'static Kafka,
    pub(crate) s3: &'static S3Server,
    pub(crate) site: Site<'static>,
    pub(crate) hooks: Receiver,
    /// Files by which processes are held and marked.
    pub(crate) folder: Folder,
}

impl Rig {
    /// A site of its own on the brokers and the store that all tests share.
    pub(crate) async fn new(partitions: i32) -> Self {
        Self::on(Kafka::shared().await.unwrap(), partitions).await
    }

    /// A site of its own on these brokers and the store that all tests share.
    pub(crate) async fn on(kafka: &'static Kafka, partitions: i32) -> Self {
        let s3 = S3Server::shared().await.unwrap();
        Self {
            kafka,
            s3,
            site: Site::new(kafka, s3, partitions).await.unwrap(),
            hooks: Receiver::start().await.unwrap(),
            folder: Folder::new().unwrap(),
        }
    }

    /// A processor with a model that takes no time.
    pub(crate) fn processor(&self) -> WorkerOptions {
        self.site
            .worker(WORKER, "processor")
            .env("MODEL_FILE_DIR", MODELS)
            .env("MODEL_NAME", "identity_tiny.onnx")
            .env("THREADS", "1")
    }

    pub(crate) fn uploader(&self) -> WorkerOptions {
        self.site.worker(WORKER, "uploader")
    }

    /// A worker for which stems, and songs that the API stored, wait in the bucket.
    pub(crate) fn staged_in_s3(&self, options: WorkerOptions) -> WorkerOptions {
        options.env(env::S3_STAGING, format!("s3://{}/staging", self.site.bucket))
    }

    /// A file in whose presence a worker that is told of it by [`held_at`] waits.
    pub(crate) fn hold(&self) -> PathBuf {
        self.hold_of("hold")
    }

    /// The same for one worker of several.
    pub(crate) fn hold_of(&self, name: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, "").unwrap();
        file
    }

    /// Posts a tiny song of its own.
    pub(crate) async fn submit(&self, number: u64) -> String {
        self.site
            .submit(&tiny_song(number), &self.hooks.url("/hook"))
            .await
            .unwrap()
    }

    /// Posts a tiny song of its own into a partition.
    pub(crate) async fn submit_to(&self, partition: i32, number: u64) -> String {
        let (task, path) = self.site.put_song(&tiny_song(number)).unwrap();
        let message = task_message(&task, &path.display().to_string(), &self.hooks.url("/hook"));
        self.kafka
            .publish_to(&self.site.task_topic, partition, &task, message.to_string())
            .await
            .unwrap();
        task
    }

    /// Posts a song that waits where the API puts it.
    pub(crate) async fn submit_object(&self, song: Vec<u8>) -> String {
        let task = uuid::Uuid::new_v4().to_string();
        let key = format!("staging/inputs/{task}_input.wav");
        self.s3.put(&self.site.bucket, &key, song).await.unwrap();
        let address = format!("s3://{}/{key}", self.site.bucket);
        let message = task_message(&task, &address, &self.hooks.url("/hook")).to_string();
        let topic = &self.site.task_topic;
        self.kafka.publish(topic, &task, message, &[]).await.unwrap();
        task
    }

    pub(crate) async fn submit_many(&self, count: u64) -> BTreeSet<String> {
        let mut tasks = BTreeSet::new();
        for number in 0..count {
            tasks.insert(self.submit(number).await);
        }
        tasks
    }

    /// Waits until nothing waits in either topic.
    pub(crate) async fn run_dry(&self) {
        eventually("all messages committed", PATIENCE, async || self.is_dry().await).await;
    }

    pub(crate) async fn is_dry(&self) -> anyhow::Result<bool> {
        let site = &self.site;
        let tasks = self
            .kafka
            .total_lag(&site.processor_group, &site.task_topic)
            .await?;
        let results = self
            .kafka
            .total_lag(&site.uploader_group, &site.result_topic)
            .await?;
        Ok(tasks == 0 && results == 0)
    }

    /// Waits until no task waits; for a site without an uploader.
    pub(crate) async fn tasks_committed(&self) {
        let site = &self.site;
        eventually("all tasks committed", PATIENCE, async || {
            let lag = self
                .kafka
                .total_lag(&site.processor_group, &site.task_topic)
                .await?;
            anyhow::Ok(lag == 0)
        })
        .await;
    }

    /// Checks that each of these tasks has exactly one result, and no other has any.
    pub(crate) async fn check_results(&self, tasks: &BTreeSet<String>) {
        let results = self.kafka.consume_all(&self.site.result_topic).await.unwrap();
        let named: BTreeSet<_> = results.iter().map(Record::key_text).collect();
        assert_eq!(&named, tasks, "a task without a result, or none of ours");
        assert_eq!(results.len(), tasks.len(), "a task with two results");
        for result in &results {
            assert_eq!(result.json()["success"], true, "{}", result.text());
        }
    }

    /// Checks that each task has both stems, a manifest that says delivered, and webhooks of one id only.
    pub(crate) async fn check_done(&self, tasks: &BTreeSet<String>) {
        for task in tasks {
            for stem in ["vocals", "instrumental"] {
                let key = format!("{task}_{stem}.wav");
                let stored = self.s3.get(&self.site.bucket, &key).await.unwrap();
                assert!(
                    stored.is_some_and(|object| !object.is_empty()),
                    "{key} is not there"
                );
            }
            let manifest = self.manifest(task).await.expect("a manifest");
            assert_eq!(manifest["status"], "success", "{manifest}");
            assert_eq!(manifest["webhook"], "delivered", "{manifest}");
            let rung = self.webhooks(task);
            assert!(!rung.is_empty(), "nobody was told of {task}");
            let ids: BTreeSet<_> = rung.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids.len(), 1, "{ids:?}");
            assert!(
                rung.iter().all(|(_, body)| body["status"] == "success"),
                "{rung:?}"
            );
        }
    }

    /// Checks that no message of either role became a dead letter.
    pub(crate) async fn no_dead_letters(&self) {
        for topic in [&self.site.task_topic, &self.site.result_topic] {
            let letters = self.kafka.consume_all(&dead_letter_topic(topic)).await.unwrap();
            assert!(letters.is_empty(), "{letters:?}");
        }
    }

    pub(crate) async fn manifest(&self, task: &str) -> Option<Value> {
        let stored = self
            .s3
            .get(&self.site.bucket, &format!("{task}.json"))
            .await
            .unwrap();
        stored.map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// Ids and bodies of the webhooks about a task.
    pub(crate) fn webhooks(&self, task: &str) -> Vec<(String, Value)> {
        let requests = self.hooks.requests_to("/hook");
        let read = requests.iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let id = request.header("webhook-id").unwrap_or_default().to_owned();
            (id, body)
        });
        read.filter(|(_, body)| body["task_uuid"] == task).collect()
    }

    /// Waits until every caller was told.
    pub(crate) async fn all_told(&self, tasks: &BTreeSet<String>) {
        eventually("every caller told", PATIENCE, async || {
            tasks.iter().all(|task| !self.webhooks(task).is_empty())
        })
        .await;
    }
}

/// A client that waits for an answer as long as a test may.
pub(crate) fn http() -> reqwest::Client {
    // Fails only when another test was quicker.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    client.build().unwrap()
}

/// The address of a worker's admin endpoint.
pub(crate) async fn admin(worker: &Worker) -> SocketAddr {
    worker.address("Admin endpoint listens", PATIENCE).await.unwrap()
}

/// The status and body of a path.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = http().get(format!("http://{address}{path}")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Ends the worker as `kill -9` does when it comes to `place` for the first time.
pub(crate) fn ends_at(options: WorkerOptions, place: &str, mark: &std::path::Path) -> WorkerOptions {
    options
        .env("SEPARATION_FAULT", place)
        .env("SEPARATION_FAULT_MARK", mark.to_str().unwrap())
}

/// Holds the worker at `place` as long as `file` is there.
pub(crate) fn held_at(options: WorkerOptions, place: &str, file: &std::path::Path) -> WorkerOptions {
    options
        .env("SEPARATION_HOLD", place)
        .env("SEPARATION_HOLD_WHILE", file.to_str().unwrap())
}

/// How long a dependency refuses in the middle of 100 tasks: 20 s, or the seconds in a variable that benchmarks set.
pub(crate) fn refusal_duration() -> Duration {
    let seconds = std::env::var("SEPARATION_TEST_REFUSAL_SECONDS");
    Duration::from_secs(seconds.map_or(20, |seconds| seconds.parse().unwrap()))
}

/// Prints how long after the repair the first task was done, for benchmarks.
pub(crate) fn print_resumed(refusal: &str, resumed: Duration) {
    eprintln!("resumed after {refusal}: {:.1} s", resumed.as_secs_f64());
}

/// How often workers came to separate a song.
pub(crate) fn separations<'w>(workers: impl IntoIterator<Item = &'w Worker>) -> usize {
    let messages = workers.into_iter().flat_map(|worker| worker.messages().unwrap());
    messages.filter(|message| message == "Separated").count()
}
