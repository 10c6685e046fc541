//! Tells callers how their tasks ended: one POST of JSON, signed where a secret is set, tried three times.
//!
//! Every try carries the same `webhook-id`, so that a receiver can tell a repeated one. Must never call an address but
//! through [`outbound`], which checks it.

mod body;
mod signature;

use std::time::Duration;

use separation_contract::message::TaskId;

pub use body::{Notice, Outcome};
pub use signature::{SecretError, Signer};

use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::outbound::{self, OutboundError};
use crate::telemetry::TraceContext;

/// How long a receiver may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The pauses between tries; with three tries of 30 s at most, a webhook takes 93 s at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Tells callers how their tasks ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhook {
    client: outbound::Client,
    signer: Option<Signer>,
}

/// Why a caller could not be told.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The receiver answered, and did not accept.
    #[error("the webhook's receiver answers {status}")]
    Status {
        /// Its answer.
        status: u16,
    },
    /// There was no answer, or the address may not be called.
    #[error("the webhook's receiver cannot be called")]
    Call(#[from] OutboundError),
}

impl WebhookError {
    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        match self {
            // Whatever it says: receivers answer 404 while they are deployed.
            Self::Status { .. } => ErrorClass::Transient,
            Self::Call(error) => error.class(),
        }
    }
}

impl Webhook {
    /// Webhooks through `client`, signed if there is a signer.
    pub fn new(client: outbound::Client, signer: Option<Signer>) -> Self {
        Self { client, signer }
    }

    /// Tells the caller at `url`. Trying again is done here; an address that may not be called is not tried again.
    ///
    /// # Errors
    /// That of the last try, when none was accepted.
    pub async fn ring(
        &self,
        url: &str,
        notice: &Notice<'_>,
        trace: TraceContext,
    ) -> Result<(), WebhookError> {
        let body = notice.to_json();
        let mut pauses = PAUSES.into_iter();
        loop {
            let headers = self.headers(notice.task_uuid, unix_time().as_secs(), &body, trace);
            let Err(error) = self.call(url, &headers, &body).await else {
                return Ok(());
            };
            let pause = pauses.next().filter(|_| error.class() == ErrorClass::Transient);
            let Some(pause) = pause else {
                return Err(error);
            };
            let problem = crate::work::chain(&error);
            tracing::warn!(task_uuid = %notice.task_uuid, error = problem, "The webhook failed; trying again");
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
            .post_json(url, headers, body.to_vec(), ANSWER_TIMEOUT)
            .await?
        {
            200..=299 => Ok(()),
            status => Err(WebhookError::Status { status }),
        }
    }

    /// The headers of one try; the timestamp is the try's, so that receivers can refuse old ones.
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
        if let Some(signer) = &self.signer {
            headers.push(("webhook-signature", signer.sign(task.as_str(), timestamp, body)));
        }
        headers
    }
}
