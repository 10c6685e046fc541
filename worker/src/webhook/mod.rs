//! Webhooks: one POST of JSON when a task ends, signed if a secret is set. Those of the drop-in API are sent up to three
//! times; those of the HTTP API v1 as often as its schedule says.
//!
//! Every delivery carries the same `webhook-id`, so that a receiver can recognize duplicates. Must call addresses only
//! through [`outbound`], which checks them.

mod body;
mod event;
mod headers;
mod signature;

use std::time::Duration;

pub use body::{WebhookContent, WebhookOutcome};
pub use event::{Attempt, Event, event_id, send};
pub use signature::{SecretError, Signer};

use self::headers::headers;
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
            let now = unix_time().as_secs();
            let headers = headers(&self.signers, content.task_uuid.as_str(), now, &body, trace);
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
}
