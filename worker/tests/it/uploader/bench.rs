//! An uploader with a real object store and a real webhook receiver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use separation_contract::message::{Outcome, TaskResult};
use separation_testbed::S3Server;
use separation_worker::outbound;
use separation_worker::settings::{ObjectAddress, S3Settings};
use separation_worker::storage::{Finals, S3, Scratch};
use separation_worker::task_store::TaskStore;
use separation_worker::telemetry::{Metrics, TraceContext};
use separation_worker::uploader::Uploader;
use separation_worker::webhook::{Signer, Webhook};
use separation_worker::work::WorkContext;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::storage::staging_area::{StagingArea, new_bucket, s3_settings, task};

/// Secret of the webhook signatures; not base64, so its bytes are used directly.
pub(crate) const SECRET: &str = "secret";

/// The signing secret before a rotation.
pub(crate) const PREVIOUS_SECRET: &str = "the secret before";

/// An uploader with its staging, receiver and bucket.
pub(crate) struct Bench {
    pub(crate) area: StagingArea,
    pub(crate) uploader: Uploader,
    pub(crate) receiver: Receiver,
    pub(crate) bucket: String,
    pub(crate) finals: Finals,
    pub(crate) tasks: TaskStore,
    s3: S3,
}

/// A received webhook.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedWebhook {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A webhook receiver.
pub(crate) struct Receiver {
    pub(crate) url: String,
    webhooks: Arc<Mutex<Vec<ReceivedWebhook>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl Bench {
    pub(crate) async fn new(area: StagingArea) -> Self {
        Self::with_prefix(area, "").await
    }

    /// Stems have this prefix in their object keys.
    pub(crate) async fn with_prefix(area: StagingArea, prefix: &str) -> Self {
        let bucket = new_bucket().await;
        let settings = S3Settings {
            stems_prefix: prefix.to_owned(),
            ..s3_settings(&bucket).await
        };
        let s3 = S3::connect(&settings).await;
        let finals = Finals::new(s3.clone(), &settings).unwrap();
        let tasks = TaskStore::new(s3.clone(), &settings).unwrap();
        let scratch = Scratch::open(Some(&area.path("previews")), 64 << 20).unwrap();
        Self {
            uploader: uploader(&area, &finals, tasks.clone(), Some(scratch)),
            area,
            receiver: Receiver::start().await,
            bucket,
            finals,
            tasks,
            s3,
        }
    }

    /// Another uploader of the same stems, with these tasks of v1 and without scratch space.
    pub(crate) fn uploader_with(&self, tasks: TaskStore) -> Uploader {
        uploader(&self.area, &self.finals, tasks, None)
    }

    /// The result of staged stems.
    pub(crate) async fn staged(&self, name: &str) -> TaskResult {
        let manifest = self.area.publish(name, "1").await;
        self.success(name, &manifest.vocals.path, &manifest.instrumental.path)
    }

    pub(crate) fn success(&self, name: &str, vocals: &str, instrumental: &str) -> TaskResult {
        TaskResult {
            task_uuid: task(name),
            hook_url: Some(self.receiver.url.clone()),
            outcome: Outcome::Success {
                vocals_path: vocals.to_owned(),
                instrumental_path: instrumental.to_owned(),
            },
            task_message: None,
            started_at: None,
            v1: None,
        }
    }

    pub(crate) fn failure(&self, name: &str) -> TaskResult {
        TaskResult::failure(task(name), Some(self.receiver.url.clone()), "not audio")
    }

    /// The text of a final object.
    pub(crate) async fn object(&self, key: &str) -> Option<String> {
        Some(String::from_utf8(self.bytes(key).await?).unwrap())
    }

    pub(crate) async fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let object = self.s3.read_small(&self.address(key), 16 << 20).await.ok()?;
        Some(object.to_vec())
    }

    pub(crate) async fn put_object(&self, key: &str, content: &'static str) {
        self.s3
            .write_small(&self.address(key), content, None)
            .await
            .unwrap();
    }

    /// The final manifest, without its timestamp.
    pub(crate) async fn manifest(&self, name: &str) -> Option<Value> {
        let mut manifest: Value = serde_json::from_str(&self.object(&format!("{name}.json")).await?).unwrap();
        let finished_at = manifest.as_object_mut().unwrap().remove("finished_at").unwrap();
        assert!(finished_at.as_u64().unwrap() > 1_700_000_000);
        Some(manifest)
    }

    /// The webhook state in the final manifest.
    pub(crate) async fn webhook(&self, name: &str) -> Option<String> {
        Some(self.manifest(name).await?["webhook"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn content_type(&self, key: &str) -> Option<String> {
        let server = S3Server::shared().await.unwrap();
        server.content_type(&self.bucket, key).await.unwrap()
    }

    /// All object keys in the bucket.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let objects = self.s3.list(&self.address(""), 100).await.unwrap();
        objects.into_iter().map(|object| object.key).collect()
    }

    fn address(&self, key: &str) -> ObjectAddress {
        ObjectAddress {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
        }
    }
}

fn uploader(area: &StagingArea, finals: &Finals, tasks: TaskStore, scratch: Option<Scratch>) -> Uploader {
    let client = outbound::Client::new(&["127.0.0.1".parse().unwrap()]);
    let signers = [SECRET, PREVIOUS_SECRET].map(|secret| Signer::new(&secret.into()).unwrap());
    let webhook = Webhook::new(client, signers.into());
    Uploader::new(area.staging.clone(), finals.clone(), webhook, tasks, scratch)
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let webhooks: Arc<Mutex<Vec<ReceivedWebhook>>> = Arc::default();
        let statuses: Arc<Mutex<VecDeque<u16>>> = Arc::default();
        let (store, queue) = (Arc::clone(&webhooks), Arc::clone(&statuses));
        let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| async move {
            store.lock().unwrap().push(ReceivedWebhook { headers, body });
            let status = queue.lock().unwrap().pop_front().unwrap_or(204);
            StatusCode::from_u16(status).unwrap()
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            webhooks,
            statuses,
        }
    }

    /// Responds with these statuses in turn, then with 204.
    pub(crate) fn respond_with(&self, statuses: &[u16]) {
        self.statuses.lock().unwrap().extend(statuses);
    }

    pub(crate) fn webhooks(&self) -> Vec<ReceivedWebhook> {
        self.webhooks.lock().unwrap().clone()
    }
}

impl ReceivedWebhook {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, without its timestamp.
    pub(crate) fn body_without_timestamp(&self) -> Value {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap();
        let timestamp = body.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(timestamp.as_u64().unwrap() > 1_700_000_000);
        body
    }
}

/// A [`WorkContext`] whose ownership is confirmed for this many requests, then lost.
pub(crate) fn context_confirmed(confirmations: usize) -> WorkContext {
    context_with(move |earlier| std::future::ready(earlier < confirmations))
}

/// A [`WorkContext`] whose ownership is confirmed or not by `confirm`, which is called with the number of earlier
/// requests.
pub(crate) fn context_with<F>(mut confirm: impl FnMut(usize) -> F + Send + 'static) -> WorkContext
where
    F: Future<Output = bool> + Send + 'static,
{
    let deadline = Instant::now() + Duration::from_secs(60);
    let (context, mut work) = WorkContext::new(deadline, TraceContext::start(), Metrics::new());
    tokio::spawn(async move {
        let mut earlier = 0;
        while let Some(request) = work.requests.recv().await {
            let holds = confirm(earlier).await;
            earlier += 1;
            let _ = request.send(holds);
        }
    });
    context
}

/// A [`WorkContext`] whose ownership is always confirmed.
pub(crate) fn context() -> WorkContext {
    context_confirmed(usize::MAX)
}
