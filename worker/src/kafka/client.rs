//! Settings, logging and error classification that all Kafka clients of this crate share.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use separation_kafka::{Cluster, ReadError, TokenCache};

use super::error::refused_scope;
use super::gate::Gate;
use super::log_throttle::LogThrottle;
use super::tokens::{self, NO_TOKEN};
use crate::settings::KafkaSettings;

/// Timeout of the check whether brokers still refuse this process: half of the time between two checks.
pub(super) const REFUSAL_CHECK_LIMIT: Duration = Duration::from_secs(5);

/// Recently logged errors of all clients of this process, which connect to the same brokers.
static LOG_THROTTLE: Mutex<LogThrottle<String>> = Mutex::new(LogThrottle::new());

/// The settings of a client: the shared ones, and its own ones in `kind`.
pub(super) fn config(kafka: &KafkaSettings, kind: Vec<(&'static str, String)>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.client_settings().into_iter().chain(kind) {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// A client without librdkafka, with the tokens that all clients of this process share.
pub(super) fn cluster(kafka: &KafkaSettings) -> Result<Cluster, ReadError> {
    let settings = kafka.cluster_settings()?;
    match &kafka.tokens {
        Some(tokens) => Cluster::with_cache(&settings, tokens.clone()),
        None => Cluster::new(&settings),
    }
}

/// Writes one of librdkafka's log lines. Its warnings are about connections that it restores by itself.
pub(super) fn log(level: RDKafkaLogLevel, part: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(part, line, "Kafka client failure");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if should_log(part) => {
            tracing::warn!(part, line, "Kafka client");
        }
        _ => tracing::debug!(part, line, "Kafka client"),
    }
}

/// Logs an error that belongs to no single request. The client recovers by itself, except from wrong credentials.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    if code == Some(RDKafkaErrorCode::PartitionEOF) {
        // Not an error; polling returns it as well.
        return;
    }
    if let Some(reason) = reason.strip_prefix(NO_TOKEN) {
        match should_log(NO_TOKEN) {
            true => tracing::error!(reason, "This worker has no token for Kafka and keeps trying"),
            false => tracing::debug!(reason, "There is still no token for Kafka"),
        }
        return;
    }
    let refused = code.is_some_and(|code| refused_scope(code).is_some());
    let kind = code.map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    match (should_log(&kind), refused) {
        (true, true) => tracing::error!(
            %error,
            reason,
            "Kafka refuses this worker, which keeps trying; fix: correct its credentials, certificates or ACLs"
        ),
        (true, false) => tracing::warn!(%error, reason, "Kafka client error; the client keeps trying"),
        (false, _) => tracing::debug!(%error, reason, "Kafka client error persists"),
    }
}

/// Whether an error of this kind was not logged recently; records it as logged if so.
pub(super) fn should_log(kind: &str) -> bool {
    let mut throttle = LOG_THROTTLE.lock().unwrap_or_else(PoisonError::into_inner);
    throttle.should_log(kind.to_owned(), Instant::now())
}

/// Runs a librdkafka call that blocks until the brokers respond.
pub(super) async fn run_blocking<T: Send + 'static>(
    call: impl FnOnce() -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let answer = tokio::task::spawn_blocking(call).await;
    answer.unwrap_or(Err(KafkaError::Canceled))
}

/// The context of clients that need no other callbacks.
#[derive(Debug, Clone)]
pub(super) struct Logging {
    /// Errors are reported to it.
    pub(super) gate: Option<Gate>,
    tokens: Option<TokenCache>,
}

impl Logging {
    /// The context of a client with these settings.
    pub(super) fn new(kafka: &KafkaSettings, gate: Option<Gate>) -> Self {
        Self {
            gate,
            tokens: kafka.tokens.clone(),
        }
    }
}

impl rdkafka::ClientContext for Logging {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        tokens::for_client(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, part: &str, line: &str) {
        log(level, part, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
        tokens::renew_refused(self.tokens.as_ref(), &error, reason);
        if let Some(gate) = &self.gate {
            gate.record_error(&error);
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Logging {}
