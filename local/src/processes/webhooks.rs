//! The webhook receiver for finished tasks: on loopback, at a random path.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use separation_daemon::Limits;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The most queued webhooks; when the queue is full, the sender gets 503 and retries.
const QUEUE_SIZE: usize = 64;

/// The body of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct WebhookPayload {
    pub(super) task_uuid: String,
    #[serde(flatten)]
    pub(super) outcome: TaskOutcome,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum TaskOutcome {
    Success { vocals: String, instrumental: String },
    Failed { error_message: String },
}

/// A receiver that stops when this is dropped.
#[derive(Debug)]
pub(super) struct Webhooks {
    pub(super) url: String,
    pub(super) payloads: mpsc::Receiver<WebhookPayload>,
    serving: AbortHandle,
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Webhooks {
    /// Listens on a free port.
    pub(super) async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .context("cannot listen for webhooks")?;
        let address = listener
            .local_addr()
            .context("the webhook receiver has no address")?;
        let path = format!("/webhooks/{}", Uuid::new_v4().simple());
        let (sender, payloads) = mpsc::channel(QUEUE_SIZE);
        let app = Router::new().route(&path, post(receive)).with_state(sender);
        let until_dropped = CancellationToken::new();
        let serving = tokio::spawn(async move {
            separation_daemon::serve(listener, app, Limits::ADMIN, until_dropped, Duration::ZERO).await
        });
        Ok(Self {
            url: format!("http://{address}{path}"),
            payloads,
            serving: serving.abort_handle(),
        })
    }
}

async fn receive(
    State(payloads): State<mpsc::Sender<WebhookPayload>>,
    Json(payload): Json<WebhookPayload>,
) -> StatusCode {
    match payloads.try_send(payload) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_webhook_of_a_worker_is_read() {
        let mut webhooks = Webhooks::listen().await.unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let post = |body: serde_json::Value| http.post(&webhooks.url).json(&body).send();
        let success = json!({"task_uuid": "a", "status": "success", "timestamp": 1, "vocals": "v", "instrumental": "i"});
        assert_eq!(post(success).await.unwrap().status(), 204);
        let failed =
            json!({"task_uuid": "b", "status": "failed", "timestamp": 1, "error_message": "not audio"});
        assert_eq!(post(failed).await.unwrap().status(), 204);
        assert_eq!(post(json!({"task_uuid": "c"})).await.unwrap().status(), 422);
        let first = webhooks.payloads.recv().await.unwrap();
        let outcome = TaskOutcome::Success {
            vocals: "v".into(),
            instrumental: "i".into(),
        };
        assert_eq!((first.task_uuid.as_str(), first.outcome), ("a", outcome));
        let second = webhooks.payloads.recv().await.unwrap();
        assert_eq!(
            second.outcome,
            TaskOutcome::Failed {
                error_message: "not audio".into()
            }
        );
    }
}
