//! Where workers tell this process that a task is over: a receiver on loopback, at an address that nobody else knows.

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

/// Webhooks that wait to be read; a sender whose webhook finds no room sends it again.
const WAITING: usize = 64;

/// What a caller of the API is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Notice {
    pub(super) task_uuid: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum Outcome {
    Success { vocals: String, instrumental: String },
    Failed { error_message: String },
}

/// A receiver; it ends with this value.
#[derive(Debug)]
pub(super) struct Webhooks {
    pub(super) url: String,
    pub(super) notices: mpsc::Receiver<Notice>,
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
            .context("the receiver of webhooks has no address")?;
        let path = format!("/webhooks/{}", Uuid::new_v4().simple());
        let (sender, notices) = mpsc::channel(WAITING);
        let app = Router::new().route(&path, post(receive)).with_state(sender);
        let until_dropped = CancellationToken::new();
        let serving = tokio::spawn(async move {
            separation_daemon::serve(listener, app, Limits::ADMIN, until_dropped, Duration::ZERO).await
        });
        Ok(Self {
            url: format!("http://{address}{path}"),
            notices,
            serving: serving.abort_handle(),
        })
    }
}

async fn receive(State(notices): State<mpsc::Sender<Notice>>, Json(notice): Json<Notice>) -> StatusCode {
    match notices.try_send(notice) {
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
        let first = webhooks.notices.recv().await.unwrap();
        let outcome = Outcome::Success {
            vocals: "v".into(),
            instrumental: "i".into(),
        };
        assert_eq!((first.task_uuid.as_str(), first.outcome), ("a", outcome));
        let second = webhooks.notices.recv().await.unwrap();
        assert_eq!(
            second.outcome,
            Outcome::Failed {
                error_message: "not audio".into()
            }
        );
    }
}
