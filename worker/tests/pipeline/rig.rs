//! A site with processors, uploaders and a webhook receiver, and the checks of its final state.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use separation_contract::environment as env;
use separation_contract::names::dead_letter_topic;
use separation_testbed::{
    Kafka, Receiver, Record, S3Server, Site, TempDirectory, Worker, WorkerOptions, eventually, task_message,
    tiny_song,
};
use separation_worker::settings::{S3Credentials, S3Settings};
use separation_worker::storage::S3;
use separation_worker::task_store::TaskStore;
use serde_json::Value;

/// Timeout of any step, generous for a busy machine.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// The program under test.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_separation-worker");

/// Directory of the test models.
pub(crate) const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Everything that a test of the pipeline needs.
pub(crate) struct Rig {
    pub(crate) kafka: &'static Kafka,
    pub(crate) s3: &'static S3Server,
    pub(crate) site: Site<'static>,
    pub(crate) hooks: Receiver,
    /// Directory for the files that hold processes or mark faults.
    pub(crate) directory: TempDirectory,
}

impl Rig {
    /// A new site on the brokers and the object store that all tests share.
    pub(crate) async fn new(partitions: i32) -> Self {
        Self::on(Kafka::shared().await.unwrap(), partitions).await
    }

    /// A new site on these brokers and the object store that all tests share.
    pub(crate) async fn on(kafka: &'static Kafka, partitions: i32) -> Self {
        Self::with(kafka, S3Server::shared().await.unwrap(), partitions).await
    }

    /// A new site on these servers.
    pub(crate) async fn with(kafka: &'static Kafka, s3: &'static S3Server, partitions: i32) -> Self {
        Self {
            kafka,
            s3,
            site: Site::new(kafka, s3, partitions).await.unwrap(),
            hooks: Receiver::start().await.unwrap(),
            directory: TempDirectory::new().unwrap(),
        }
    }

    /// A processor with the smallest test model.
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

    /// A worker that stages stems, and songs that the API stored, in the bucket.
    pub(crate) fn staged_in_s3(&self, options: WorkerOptions) -> WorkerOptions {
        options.env(env::S3_STAGING, format!("s3://{}/staging", self.site.bucket))
    }

    /// The tasks of the HTTP API v1.
    pub(crate) async fn task_store(&self) -> TaskStore {
        let settings = S3Settings {
            endpoint: Some(self.s3.endpoint().parse().unwrap()),
            credentials: Some(S3Credentials {
                access_key: self.s3.access_key().into(),
                secret_key: self.s3.secret_key().into(),
                session_token: None,
            }),
            region: None,
            bucket: Some(self.site.bucket.clone()),
            stems_prefix: String::new(),
            public_domain: None,
            public_endpoint: None,
            path_style: true,
        };
        TaskStore::new(S3::connect(&settings).await, &settings).unwrap()
    }

    /// A file that holds a worker started with [`held_at`] while it exists.
    pub(crate) fn hold(&self) -> PathBuf {
        self.hold_of("hold")
    }

    /// A file that holds one of several workers.
    pub(crate) fn hold_of(&self, name: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        std::fs::write(&file, "").unwrap();
        file
    }

    /// Posts a new tiny song.
    pub(crate) async fn submit(&self, number: u64) -> String {
        self.site
            .submit(&tiny_song(number), &self.hooks.url("/hook"))
            .await
            .unwrap()
    }

    /// Posts a new tiny song to a partition.
    pub(crate) async fn submit_to(&self, partition: i32, number: u64) -> String {
        let (task, path) = self.site.put_song(&tiny_song(number)).unwrap();
        let message = task_message(&task, &path.display().to_string(), &self.hooks.url("/hook"));
        self.kafka
            .publish_to(&self.site.task_topic, partition, &task, message.to_string())
            .await
            .unwrap();
        task
    }

    /// Posts a song that is stored in the bucket, as the API stores it.
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

    /// Waits until the lag of both topics is 0.
    pub(crate) async fn wait_until_committed(&self) {
        eventually("all messages committed", STEP_TIMEOUT, async || {
            self.all_committed().await
        })
        .await;
    }

    pub(crate) async fn all_committed(&self) -> anyhow::Result<bool> {
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

    /// Waits until the lag of the task topic is 0; for a site without an uploader.
    pub(crate) async fn tasks_committed(&self) {
        let site = &self.site;
        eventually("all tasks committed", STEP_TIMEOUT, async || {
            let lag = self
                .kafka
                .total_lag(&site.processor_group, &site.task_topic)
                .await?;
            anyhow::Ok(lag == 0)
        })
        .await;
    }

    /// Checks that each of these tasks has exactly one result, which is a success, and that no other task has any.
    pub(crate) async fn check_results(&self, tasks: &BTreeSet<String>) {
        let results = self.kafka.consume_all(&self.site.result_topic).await.unwrap();
        let named: BTreeSet<_> = results.iter().map(Record::key_text).collect();
        assert_eq!(&named, tasks, "a task without a result, or an unknown task");
        assert_eq!(results.len(), tasks.len(), "a task with two results");
        for result in &results {
            assert_eq!(result.json()["success"], true, "{}", result.text());
        }
    }

    /// Checks that each task has both stems, a manifest with a delivered webhook, and webhooks of one id only.
    pub(crate) async fn check_done(&self, tasks: &BTreeSet<String>) {
        for task in tasks {
            for stem in ["vocals", "instrumental"] {
                let key = format!("{task}_{stem}.wav");
                let stored = self.s3.get(&self.site.bucket, &key).await.unwrap();
                assert!(
                    stored.is_some_and(|object| !object.is_empty()),
                    "{key} is missing or empty"
                );
            }
            let manifest = self.manifest(task).await.expect("a manifest");
            assert_eq!(manifest["status"], "success", "{manifest}");
            assert_eq!(manifest["webhook"], "delivered", "{manifest}");
            let deliveries = self.webhooks(task);
            assert!(!deliveries.is_empty(), "no webhook for {task}");
            let ids: BTreeSet<_> = deliveries.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids.len(), 1, "{ids:?}");
            assert!(
                deliveries.iter().all(|(_, body)| body["status"] == "success"),
                "{deliveries:?}"
            );
        }
    }

    /// Checks that both dead-letter topics are empty.
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

    /// Ids and bodies of a task's webhooks.
    pub(crate) fn webhooks(&self, task: &str) -> Vec<(String, Value)> {
        let requests = self.hooks.requests_to("/hook");
        let read = requests.iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let id = request.header("webhook-id").unwrap_or_default().to_owned();
            (id, body)
        });
        read.filter(|(_, body)| body["task_uuid"] == task).collect()
    }

    /// Waits until every task has a webhook.
    pub(crate) async fn wait_for_webhooks(&self, tasks: &BTreeSet<String>) {
        eventually("a webhook for every task", STEP_TIMEOUT, async || {
            tasks.iter().all(|task| !self.webhooks(task).is_empty())
        })
        .await;
    }
}

/// An HTTP client with the timeout of a step.
pub(crate) fn http() -> reqwest::Client {
    // Fails only if another test has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(STEP_TIMEOUT);
    client.build().unwrap()
}

/// The address of a worker's admin endpoint.
pub(crate) async fn admin(worker: &Worker) -> SocketAddr {
    worker
        .address("Admin endpoint listens", STEP_TIMEOUT)
        .await
        .unwrap()
}

/// The status and body of a path.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = http().get(format!("http://{address}{path}")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Kills the worker with SIGKILL when it reaches `point` for the first time.
pub(crate) fn killed_at(options: WorkerOptions, point: &str, mark: &std::path::Path) -> WorkerOptions {
    options
        .env("SEPARATION_FAULT", point)
        .env("SEPARATION_FAULT_MARK", mark.to_str().unwrap())
}

/// Holds the worker at `point` while `file` exists.
pub(crate) fn held_at(options: WorkerOptions, point: &str, file: &std::path::Path) -> WorkerOptions {
    options
        .env("SEPARATION_HOLD", point)
        .env("SEPARATION_HOLD_WHILE", file.to_str().unwrap())
}

/// Duration of a refusal during 100 tasks: 20 s, or the seconds in `SEPARATION_TEST_REFUSAL_SECONDS` (benchmarks).
pub(crate) fn refusal_duration() -> Duration {
    let seconds = std::env::var("SEPARATION_TEST_REFUSAL_SECONDS");
    Duration::from_secs(seconds.map_or(20, |seconds| seconds.parse().unwrap()))
}

/// Prints how long after the repair the first task was finished, for benchmarks.
pub(crate) fn print_resumed(refusal: &str, resumed: Duration) {
    eprintln!("resumed after {refusal}: {:.1} s", resumed.as_secs_f64());
}

/// Number of songs that the workers separated.
pub(crate) fn separations<'w>(workers: impl IntoIterator<Item = &'w Worker>) -> usize {
    let messages = workers.into_iter().flat_map(|worker| worker.messages().unwrap());
    messages.filter(|message| message == "Separated").count()
}
