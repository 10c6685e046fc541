//! The API with a queue and files that tests inspect, and servers of songs.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use base64::Engine as _;
use bytes::Bytes;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use separation_contract::message::{Task, TaskId};
use separation_worker::api::{
    ApiArguments, App, QueueError, QueueProgress, TaskFiles, TaskQueue, serve_until,
};
use separation_worker::error::ErrorClass;
use separation_worker::kafka::Position;
use separation_worker::outbound::Client;
use separation_worker::service::Shutdown;
use separation_worker::settings::OutboundAllow;
use separation_worker::storage::FinalManifest;
use separation_worker::task_store::TaskStore;
use separation_worker::telemetry::{ApiMetrics, TraceContext};
use separation_worker::work::WorkError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Waits until a condition holds; fails after ten seconds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        while !holds() {
            tick.tick().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(done.is_ok(), "not in ten seconds: {what}");
}

/// A queue in memory, with scripted failures.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) unreachable: Mutex<bool>,
    pub(super) refuses: Mutex<Option<ErrorClass>>,
    /// Whether tasks are queued but the response is lost.
    pub(super) answer_lost: Mutex<bool>,
    /// Whether there is no partition that a publish names.
    pub(super) lacks_partitions: Mutex<bool>,
    pub(super) progress: Mutex<Option<QueueProgress>>,
    pub(super) tasks: Mutex<Vec<(Task, TraceContext)>>,
    /// Number of partitions chosen so far; each is another one.
    placed: AtomicI32,
    /// The partition that each publish named.
    pub(super) partitions: Mutex<Vec<Option<i32>>>,
    pub(super) closed: Mutex<bool>,
}

impl TaskQueue for Queue {
    fn reachable(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { !*self.unreachable.lock().unwrap() })
    }

    fn place(&self) -> BoxFuture<'_, Option<i32>> {
        Box::pin(async { Some(self.placed.fetch_add(1, Ordering::SeqCst)) })
    }

    fn publish<'a>(
        &'a self,
        task: &'a Task,
        partition: Option<i32>,
        trace: TraceContext,
    ) -> BoxFuture<'a, Result<Position, QueueError>> {
        Box::pin(async move {
            self.partitions.lock().unwrap().push(partition);
            let error = |class| WorkError::new(class, "scripted failure");
            if let Some(class) = *self.refuses.lock().unwrap() {
                return Err(QueueError::NotQueued(error(class)));
            }
            if partition.is_some() && *self.lacks_partitions.lock().unwrap() {
                return Err(QueueError::NoPartition(error(ErrorClass::Transient)));
            }
            let mut tasks = self.tasks.lock().unwrap();
            tasks.push((task.clone(), trace));
            if *self.answer_lost.lock().unwrap() {
                return Err(QueueError::Unknown(error(ErrorClass::Transient)));
            }
            Ok(Position {
                partition: partition.unwrap_or_default(),
                offset: tasks.len() as i64 - 1,
            })
        })
    }

    fn progress(&self, _: i32) -> BoxFuture<'_, Option<QueueProgress>> {
        Box::pin(async { *self.progress.lock().unwrap() })
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async { *self.closed.lock().unwrap() = true })
    }
}

/// Songs, records and manifests by name, in memory.
#[derive(Default)]
pub(super) struct Files {
    pub(super) inputs: Mutex<HashMap<String, Vec<u8>>>,
    pub(super) records: Mutex<HashMap<String, Vec<u8>>>,
    pub(super) manifests: Mutex<HashMap<String, FinalManifest>>,
    pub(super) separated: Mutex<bool>,
    pub(super) fails: Mutex<Option<ErrorClass>>,
    pub(super) receiving: AtomicUsize,
}

impl Files {
    pub(super) fn is_empty(&self) -> bool {
        self.inputs.lock().unwrap().is_empty() && self.records.lock().unwrap().is_empty()
    }

    /// Publishes a task's manifest.
    pub(super) fn publish_manifest(&self, task: &str, manifest: serde_json::Value) {
        let manifest = serde_json::from_value(manifest).unwrap();
        self.manifests.lock().unwrap().insert(task.to_owned(), manifest);
    }

    fn check(&self) -> Result<(), WorkError> {
        match *self.fails.lock().unwrap() {
            Some(class) => Err(WorkError::new(class, "scripted failure")),
            None => Ok(()),
        }
    }
}

impl TaskFiles for Files {
    fn put_input<'a>(
        &'a self,
        task: &'a TaskId,
        mut song: BoxStream<'a, io::Result<Bytes>>,
        _: u64,
    ) -> BoxFuture<'a, Result<String, WorkError>> {
        Box::pin(async move {
            self.check()?;
            self.receiving.fetch_add(1, Ordering::SeqCst);
            let mut bytes = Vec::new();
            while let Some(piece) = song.next().await {
                let piece = piece.map_err(|error| WorkError::new(ErrorClass::Permanent, error))?;
                bytes.extend_from_slice(&piece);
            }
            self.inputs.lock().unwrap().insert(task.to_string(), bytes);
            Ok(format!("/songs/{task}_input.wav"))
        })
    }

    fn input_path(&self, task: &TaskId) -> Result<String, WorkError> {
        Ok(format!("/songs/{task}_input.wav"))
    }

    fn delete_input<'a>(
        &'a self,
        task: &'a TaskId,
        audio_path: &'a str,
    ) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async move {
            assert_eq!(audio_path, format!("/songs/{task}_input.wav"));
            self.inputs.lock().unwrap().remove(task.as_str());
            Ok(())
        })
    }

    fn put_record<'a>(&'a self, task: &'a TaskId, record: Vec<u8>) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async {
            self.records.lock().unwrap().insert(task.to_string(), record);
            Ok(())
        })
    }

    fn record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Vec<u8>>, WorkError>> {
        Box::pin(async { Ok(self.records.lock().unwrap().get(task.as_str()).cloned()) })
    }

    fn delete_record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async {
            self.records.lock().unwrap().remove(task.as_str());
            Ok(())
        })
    }

    fn erase<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async {
            self.inputs.lock().unwrap().remove(task.as_str());
            self.records.lock().unwrap().remove(task.as_str());
            Ok(())
        })
    }

    fn is_separated<'a>(&'a self, _: &'a TaskId) -> BoxFuture<'a, Result<bool, WorkError>> {
        Box::pin(async { Ok(*self.separated.lock().unwrap()) })
    }

    fn manifest<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<FinalManifest>, WorkError>> {
        Box::pin(async {
            self.check()?;
            Ok(self.manifests.lock().unwrap().get(task.as_str()).cloned())
        })
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    api: ApiArguments,
}

/// A running API.
pub(super) struct Bench {
    pub(super) url: String,
    pub(super) queue: Arc<Queue>,
    pub(super) files: Arc<Files>,
    pub(super) http: reqwest::Client,
    pub(super) stop: CancellationToken,
    pub(super) ended: tokio::task::JoinHandle<()>,
}

pub(super) const PASSWORD: &str = "let me in";

impl Bench {
    /// An API with `options`; songs may be fetched from the host name localhost only.
    pub(super) async fn start(options: &[&str]) -> Self {
        Self::start_with(options, None).await
    }

    /// An API with `options`, and with the HTTP API v1 if `tasks` is its store.
    pub(super) async fn start_with(options: &[&str], tasks: Option<TaskStore>) -> Self {
        let common = ["api", "--host", "127.0.0.1", "--port", "0"];
        let line = Line::try_parse_from([&common, options].concat()).unwrap();
        let settings = line.api.settings().unwrap();
        let (queue, files) = (Arc::new(Queue::default()), Arc::new(Files::default()));
        let listener = TcpListener::bind(settings.address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let outbound = Client::new(&["localhost".parse::<OutboundAllow>().unwrap()]);
        let app = App::new(
            settings,
            outbound,
            queue.clone(),
            files.clone(),
            ApiMetrics::new(),
        );
        let app = match tasks {
            Some(tasks) => app.with_v1(tasks),
            None => app,
        };
        let shutdown = Shutdown::default();
        let stop = shutdown.drain.clone();
        let ended = tokio::spawn(serve_until(app, listener, shutdown));
        Self {
            url,
            queue,
            files,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            stop,
            ended,
        }
    }

    /// An API with a password, which [`Self::request`] and [`Self::get`] send.
    pub(super) async fn guarded(options: &[&str]) -> Self {
        Self::start(&[&["--password", PASSWORD], options].concat()).await
    }

    pub(super) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .basic_auth("admin", Some(PASSWORD))
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(reqwest::Method::GET, path)).await
    }

    pub(super) async fn generate(&self, audio: &str) -> Answer {
        let body = serde_json::json!({"audio": audio, "hook_url": "https://example.com/hook"});
        Answer::of(self.request(reqwest::Method::POST, "/generate").json(&body)).await
    }

    pub(super) async fn upload(&self, form: Form) -> Answer {
        Answer::of(form.into_request(self.request(reqwest::Method::POST, "/tasks"))).await
    }

    /// Whether a song is being received.
    pub(super) fn is_receiving(&self) -> bool {
        self.files.receiving.load(Ordering::SeqCst) > 0
    }

    pub(super) fn tasks(&self) -> Vec<(Task, TraceContext)> {
        self.queue.tasks.lock().unwrap().clone()
    }
}

/// A received response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: header::HeaderMap,
    pub(super) json: serde_json::Value,
}

impl Answer {
    pub(super) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        let json = serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null);
        Self {
            status,
            headers,
            json,
        }
    }

    #[track_caller]
    pub(super) fn task_uuid(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json["task_uuid"].as_str().unwrap().to_owned()
    }
}

/// A multipart form, encoded by hand.
#[derive(Default)]
pub(super) struct Form(Vec<u8>);

impl Form {
    const BOUNDARY: &'static str = "----tests-boundary";

    pub(super) fn field(mut self, name: &str, value: &[u8]) -> Self {
        let file = if matches!(name, "audio" | "file") {
            "; filename=\"song.mp3\""
        } else {
            ""
        };
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n",
            Self::BOUNDARY
        );
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub(super) fn into_request(self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let end = format!("--{}--\r\n", Self::BOUNDARY);
        let body = [self.0, end.into_bytes()].concat();
        request
            .header(header::CONTENT_TYPE, Self::content_type())
            .body(body)
    }

    pub(super) fn content_type() -> String {
        format!("multipart/form-data; boundary={}", Self::BOUNDARY)
    }

    pub(super) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// A server of songs, reached by the host name localhost.
pub(super) struct Songs {
    pub(super) url: String,
    pub(super) requests: Arc<AtomicUsize>,
}

impl Songs {
    pub(super) async fn start(song: &'static [u8]) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let stuck = || async {
            let begin = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"begin"))]);
            axum::body::Body::from_stream(begin.chain(futures_util::stream::pending()))
        };
        let app = Router::new()
            .route(
                "/song.mp3",
                get(move || async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    song
                }),
            )
            .route("/empty", get(|| async {}))
            .route("/missing", get(|| async { StatusCode::NOT_FOUND }))
            .route("/hang", get(pending::<()>))
            .route("/stuck", get(stuck))
            .route(
                "/inside",
                get(|| async {
                    (
                        StatusCode::FOUND,
                        [(header::LOCATION, "http://169.254.169.254/latest/meta-data/")],
                    )
                }),
            );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url: format!("http://localhost:{}", address.port()),
            requests,
        }
    }

    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

pub(super) fn basic(username: &str, password: &str) -> String {
    let text = format!("{username}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}
