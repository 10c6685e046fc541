//! The HTTP API v1 with a real object store, and with the queue and the files of [`Bench`].

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Method, RequestBuilder, header};
use separation_contract::api_task::StemKind;
use separation_contract::message::{Task, TaskId};
use separation_testbed::{S3Server, eventually};
use separation_worker::settings::S3Settings;
use separation_worker::storage::S3;
use separation_worker::task_store::{
    EndState, Incoming, IncomingCursor, StoredError, StoredOutcome, StoredStem, TaskStore, VERSION,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::bench::{Answer, Bench, Form};
use crate::storage::staging_area::{new_bucket, s3_settings};

/// Timeout of any step.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// The client with this many open tasks at most.
pub(super) const SMALL: &str = "small";
const SMALL_LIMIT: usize = 2;

/// A store of tasks without an API.
pub(super) struct V1Store {
    pub(super) store: TaskStore,
    server: &'static S3Server,
    bucket: String,
}

impl V1Store {
    pub(super) async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(public_endpoint: Option<&str>) -> Self {
        let bucket = new_bucket().await;
        let settings = S3Settings {
            public_endpoint: public_endpoint.map(|url| url.parse().unwrap()),
            ..s3_settings(&bucket).await
        };
        Self {
            store: TaskStore::new(S3::connect(&settings).await, &settings).unwrap(),
            server: S3Server::shared().await.unwrap(),
            bucket,
        }
    }

    /// Makes an object older.
    pub(super) fn set_age(&self, key: &str, age: Duration) {
        let written = SystemTime::now() - age;
        self.server.set_modified(&self.bucket, key, written).unwrap();
    }

    /// An API with this store.
    pub(super) async fn start(self, options: &[&str]) -> V1Bench {
        let keys = keys();
        let options = [&["--api-keys", &keys], options].concat();
        V1Bench {
            api: Bench::start_with(&options, Some(self.store.clone())).await,
            store: self.store,
            server: self.server,
            bucket: self.bucket,
        }
    }
}

/// An API with the clients `acme`, `other` and [`SMALL`].
pub(super) struct V1Bench {
    pub(super) api: Bench,
    pub(super) store: TaskStore,
    pub(super) server: &'static S3Server,
    pub(super) bucket: String,
}

impl V1Bench {
    pub(super) async fn start(options: &[&str]) -> Self {
        V1Store::new().await.start(options).await
    }

    /// An API whose clients reach the object store.
    pub(super) async fn with_public_endpoint() -> Self {
        let endpoint = S3Server::shared().await.unwrap().endpoint();
        V1Store::with(Some(&endpoint)).await.start(&[]).await
    }

    pub(super) fn request_of(&self, client: &str, method: Method, path: &str) -> RequestBuilder {
        let request = self.api.http.request(method, format!("{}{path}", self.api.url));
        request.bearer_auth(key_of(client))
    }

    /// A request of the client `acme`.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_of("acme", method, path)
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(super) fn post_json(&self, task: &Value) -> RequestBuilder {
        self.request(Method::POST, "/v1/tasks").json(task)
    }

    /// Posts a link.
    pub(super) async fn post_link(&self, url: &str) -> Answer {
        Answer::of(self.post_json(&json!({"input": {"url": url}}))).await
    }

    pub(super) fn post_form(&self, task: &Value, song: &[u8]) -> RequestBuilder {
        let form = Form::default().field("task", task.to_string().as_bytes());
        form.field("file", song)
            .into_request(self.request(Method::POST, "/v1/tasks"))
    }

    /// Tasks that were published.
    pub(super) fn queued(&self) -> Vec<Task> {
        self.api.tasks().into_iter().map(|(task, _)| task).collect()
    }

    /// Waits until a task is published and nothing of its intake is left to do.
    pub(super) async fn wait_until_queued(&self, id: &str) -> Task {
        let task = eventually("the task queued", LIMIT, async || {
            self.queued()
                .into_iter()
                .find(|task| task.task_uuid.as_str() == id)
        })
        .await;
        self.wait_for_no_mark().await;
        task
    }

    /// Tasks that are not queued yet.
    pub(super) async fn incoming(&self) -> Vec<Incoming> {
        let mut start = IncomingCursor::default();
        self.store.incoming(&mut start).await.unwrap()
    }

    /// Waits until nothing is left to do of any task's intake.
    pub(super) async fn wait_for_no_mark(&self) {
        eventually("no mark of an accepted task", LIMIT, async || {
            self.incoming().await.is_empty()
        })
        .await;
    }

    /// Waits until a task has this state, and returns it.
    pub(super) async fn wait_for_state(&self, id: &str, state: &str) -> Value {
        eventually(state, LIMIT, async || {
            let answer = self.get(&format!("/v1/tasks/{id}")).await;
            (answer.json["state"] == state).then_some(answer.json)
        })
        .await
    }

    /// Stores the stems and the outcome of a task, as an uploader does; the content of a stem is its name.
    pub(super) async fn succeed(&self, id: &str, finished_at: u64) {
        let id = task_id(id);
        let files = [
            ("peaks.json", "{}"),
            ("preview_vocals.flac", "a small version of the vocals"),
        ];
        for (file, content) in files {
            let kind = if file.ends_with("json") {
                "application/json"
            } else {
                "audio/flac"
            };
            let content = Bytes::from_static(content.as_bytes());
            self.store.put_file(&id, file, kind, content).await.unwrap();
        }
        let mut stems = Vec::new();
        for name in StemKind::ALL {
            let (file, kind) = (format!("{name}.wav"), "audio/wav");
            let content = Bytes::from_static(name.as_str().as_bytes());
            let size_bytes = content.len() as u64;
            self.store.put_file(&id, &file, kind, content).await.unwrap();
            stems.push(StoredStem {
                name,
                file,
                content_type: kind.to_owned(),
                size_bytes,
            });
        }
        let outcome = outcome(&id, EndState::Succeeded, finished_at);
        self.store
            .create_outcome(&StoredOutcome { stems, ..outcome })
            .await
            .unwrap();
    }

    /// Names of the claims that are held.
    pub(super) async fn claims(&self) -> Vec<String> {
        let listed = self.server.list(&self.bucket, "v1/claims/").await.unwrap();
        let names = listed.iter().filter_map(|object| object.key.rsplit('/').next());
        names.map(str::to_owned).collect()
    }

    /// Object keys that contain the ID of a task, without claims.
    pub(super) async fn objects_of(&self, id: &str) -> Vec<String> {
        let listed = self.server.list(&self.bucket, "").await.unwrap();
        let keys = listed.into_iter().map(|object| object.key);
        keys.filter(|key| key.contains(id) && !key.contains("/claims/"))
            .collect()
    }
}

/// The outcome of a task, without stems.
pub(super) fn outcome(id: &TaskId, state: EndState, finished_at: u64) -> StoredOutcome {
    let error = (state == EndState::Failed).then(|| StoredError {
        code: separation_contract::api_task::FailureCode::InputUnreadable,
        message: "not audio".to_owned(),
    });
    StoredOutcome {
        version: VERSION,
        id: id.clone(),
        state,
        finished_at,
        started_at: None,
        stems: Vec::new(),
        error,
    }
}

pub(super) fn task_id(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

/// The body of a form that never ends.
pub(super) fn endless(form: Form) -> reqwest::Body {
    let begin = stream::iter([Ok::<_, std::io::Error>(form.unfinished())]);
    reqwest::Body::wrap_stream(begin.chain(stream::pending()))
}

/// The ID of an accepted task.
#[track_caller]
pub(super) fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json["id"].as_str().unwrap().to_owned();
    let link = answer.headers[header::LOCATION].to_str().unwrap();
    assert_eq!(link, format!("/v1/tasks/{id}"));
    id
}

#[track_caller]
pub(super) fn check_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(answer.json["code"], code, "{answer:?}");
}

fn key_of(client: &str) -> String {
    format!("sk_{client}")
}

/// The value of `API_KEYS`.
fn keys() -> String {
    let key = |name: &str, limit: Option<usize>| {
        let sha256: [u8; 32] = Sha256::digest(key_of(name)).into();
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"name": name, "sha256": sha256, "webhook_secrets": ["whsec_c2VjcmV0"], "max_queued_tasks": limit})
    };
    json!([
        key("acme", None),
        key("other", None),
        key(SMALL, Some(SMALL_LIMIT))
    ])
    .to_string()
}
