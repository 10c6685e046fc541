//! Webhooks: one POST of JSON when a task ends, signed if a secret is set, sent up to three times.
//!
//! Every delivery carries the same `webhook-id`, so that a receiver can recognize duplicates. Must call addresses only
//! through [`outbound`], which checks them.

mod body;
mod signature;

use std::time::Duration;

use separation_contract::message::TaskId;

pub use body::{WebhookContent, WebhookOutcome};
pub use signature::{SecretError, Signer};

use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::outbound::{self, OutboundError};
use crate::telemetry::TraceContext;

/// Time limit for the receiver's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pauses between requests; with three requests of at most 30 s, a webhook takes at most 93 s.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Delivers webhooks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhook {
    client: outbound::Client,
    signers: Vec<Signer>,
}

/// Why a webhook was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The receiver responded with another status than 2xx.
    #[error("the webhook's receiver answered {status}")]
    Status {
        /// HTTP status.
        status: u16,
    },
    /// The receiver did not respond, or its address may not be called.
    #[error("the webhook's receiver cannot be called")]
    Call(#[from] OutboundError),
}

impl WebhookError {
    /// The error class, which decides whether the request is retried.
    pub fn class(&self) -> ErrorClass {
        match self {
            // Any status: receivers answer 404 while they are being deployed.
            Self::Status { .. } => ErrorClass::Transient,
            Self::Call(error) => error.class(),
        }
    }
}

impl Webhook {
    /// Sends webhooks through `client`, with a signature of each signer.
    pub fn new(client: outbound::Client, signers: Vec<Signer>) -> Self {
        Self { client, signers }
    }

    /// Delivers a webhook to `url`, with up to two retries; only a transient error is retried.
    ///
    /// # Errors
    /// The last request's error, if none was accepted.
    pub async fn deliver(
        &self,
        url: &str,
        content: &WebhookContent<'_>,
        trace: TraceContext,
    ) -> Result<(), WebhookError> {
        let body = content.to_json();
        let mut pauses = PAUSES.into_iter();
        loop {
            let headers = self.headers(content.task_uuid, unix_time().as_secs(), &body, trace);
            let Err(error) = self.call(url, &headers, &body).await else {
                return Ok(());
            };
            let pause = pauses.next().filter(|_| error.class() == ErrorClass::Transient);
            let Some(pause) = pause else {
                return Err(error);
            };
            let problem = crate::work::chain(&error);
            tracing::warn!(task_uuid = %content.task_uuid, error = problem, "The webhook failed; retrying");
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> Result<(), WebhookError> {
        match self
            .client
            .post_json(url, headers, body.to_vec(), RESPONSE_TIMEOUT)
            .await?
        {
            200..=299 => Ok(()),
            status => Err(WebhookError::Status { status }),
        }
    }

    /// The headers of one request; the timestamp is the time of this request, so that receivers can refuse old ones.
    fn headers(
        &self,
        task: &TaskId,
        timestamp: u64,
        body: &[u8],
        trace: TraceContext,
    ) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("webhook-id", task.to_string()),
            ("webhook-timestamp", timestamp.to_string()),
            (TraceContext::HEADER, trace.child().to_string()),
        ];
        if !self.signers.is_empty() {
            let signatures = self.signers.iter();
            let signatures = signatures.map(|signer| signer.sign(task.as_str(), timestamp, body));
            headers.push(("webhook-signature", signatures.collect::<Vec<_>>().join(" ")));
        }
        headers
    }
}
