//! The program itself, with librdkafka's in-process broker and real directories.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::message::Headers as _;
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use reqwest::header;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::SONG;
use super::bench::{Answer, Form, PASSWORD, Songs};

/// Timeout of any step, far longer than it takes.
const LIMIT: Duration = Duration::from_secs(30);

struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    url: String,
    directory: TempDir,
    http: reqwest::Client,
}

impl Program {
    async fn start(brokers: &str) -> Self {
        separation_worker::outbound::install_tls();
        let directory = TempDir::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_separation-worker"))
            .args([
                "api",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--bootstrap-servers",
                brokers,
            ])
            .args(["--outbound-allow", "localhost", "--admin-addr", "127.0.0.1:0"])
            .env_clear()
            .env("BASIC_AUTH_PASSWORD", PASSWORD)
            .env("TEMP_DIR", directory.path().join("songs"))
            .env("OUTPUT_DIR", directory.path().join("stems"))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = line_with(&mut log, "API listens").await;
        let address = listens.split("address=").nth(1).unwrap();
        Self {
            child,
            log,
            url: format!("http://{}", address.trim()),
            directory,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = self.http.get(format!("{}{path}", self.url));
        Answer::of(request.basic_auth("admin", Some(PASSWORD))).await
    }

    async fn post(
        &self,
        path: &str,
        fill: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let request = self.http.post(format!("{}{path}", self.url));
        Answer::of(fill(request.basic_auth("admin", Some(PASSWORD)))).await
    }

    fn songs(&self) -> Vec<String> {
        names(&self.directory.path().join("songs"))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

async fn line_with(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    let mut lines = Vec::new();
    let found = tokio::time::timeout(LIMIT, async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
            lines.push(line);
        }
        panic!("the program ended without `{text}`");
    });
    match found.await {
        Ok(line) => line,
        Err(_) => panic!("no `{text}` in the log: {lines:#?}"),
    }
}

fn consumer(brokers: &str) -> StreamConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "uvr_processor_group")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

#[tokio::test]
async fn songs_go_through_the_program_to_kafka_and_are_followed() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("uvr_tasks", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let (mut program, songs) = (Program::start(&brokers).await, Songs::start(SONG).await);

    let link = json!({"audio": songs.at("/song.mp3"), "hook_url": "https://example.com/hook"});
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fetched = program
        .post("/generate", |post| post.header("traceparent", parent).json(&link))
        .await
        .task_uuid();
    let form = Form::default().field("audio", SONG);
    let uploaded = program
        .post("/tasks", |post| form.into_request(post))
        .await
        .task_uuid();

    let consumer = consumer(&brokers);
    consumer.subscribe(&["uvr_tasks"]).unwrap();
    for (id, hook) in [(&fetched, Some("https://example.com/hook")), (&uploaded, None)] {
        let message = tokio::time::timeout(LIMIT, consumer.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.key(), Some(id.as_bytes()));
        let headers: HashMap<_, _> = message
            .headers()
            .unwrap()
            .iter()
            .map(|h| (h.key, h.value.unwrap().to_vec()))
            .collect();
        let trace = std::str::from_utf8(&headers["traceparent"]).unwrap();
        assert_eq!(
            trace.contains("0af7651916cd43dd8448eb211c80319c"),
            id == &fetched,
            "{trace}"
        );
        let task: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(task["task_uuid"], id.as_str());
        assert_eq!(task["hook_url"].as_str(), hook);
        assert_eq!(std::fs::read(task["audio_path"].as_str().unwrap()).unwrap(), SONG);
    }
    assert_eq!(
        program.songs().len(),
        4,
        "two songs and two records: {:?}",
        program.songs()
    );

    assert_eq!(
        program.get(&format!("/tasks/{uploaded}")).await.json["status"],
        "queued"
    );
    let commit = |offset, metadata: &str| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("uvr_tasks", 0, Offset::Offset(offset))
            .unwrap();
        list.find_partition("uvr_tasks", 0)
            .unwrap()
            .set_metadata(metadata);
        consumer.commit(&list, CommitMode::Sync).unwrap();
    };
    commit(0, "attempt=1");
    let status = program.get(&format!("/tasks/{uploaded}")).await.json;
    assert_eq!(
        (&status["status"], &status["position"]),
        (&json!("queued"), &json!(1)),
        "{status}"
    );
    assert_eq!(
        program.get(&format!("/tasks/{fetched}")).await.json["status"],
        "processing"
    );
    commit(1, "");
    let status = program.get(&format!("/tasks/{uploaded}")).await.json;
    assert_eq!(
        (&status["status"], &status["position"]),
        (&json!("queued"), &json!(0)),
        "{status}"
    );
    // As with `latest`, where a group's first commit is at the end of the topic.
    commit(2, "");
    let skipped = program.get(&format!("/tasks/{uploaded}")).await.json;
    assert_eq!(skipped["status"], "unknown", "{skipped}");

    let pid = rustix::process::Pid::from_raw(program.child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    for text in [
        "Received SIGTERM, initiating graceful shutdown...",
        "Kafka producer closed",
        "API shutdown complete",
    ] {
        line_with(&mut program.log, text).await;
    }
    let status = tokio::time::timeout(LIMIT, program.child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn without_brokers_no_song_stays_staged() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("uvr_tasks", 1, 1).unwrap();
    let program = Program::start(&cluster.bootstrap_servers()).await;
    cluster.broker_down(1).unwrap();
    let song = Form::default().field("audio", SONG);
    let answer = program.post("/tasks", |post| song.into_request(post)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(program.songs(), Vec::<String>::new());
    cluster.broker_up(1).unwrap();
    let queued = async {
        let mut tries = tokio::time::interval(Duration::from_millis(100));
        loop {
            let song = Form::default().field("audio", SONG);
            let answer = program.post("/tasks", |post| song.into_request(post)).await;
            if answer.status == 200 {
                break;
            }
            tries.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, queued).await.unwrap();
}

#[tokio::test]
async fn without_a_password_the_program_listens_only_on_loopback() {
    let refused = Command::new(env!("CARGO_BIN_EXE_separation-worker"))
        .args(["api", "--host", "0.0.0.0", "--port", "0"])
        .env_clear()
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("BASIC_AUTH_PASSWORD"), "{text}");
}
