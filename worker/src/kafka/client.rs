//! What all of our Kafka clients share: their settings, and where librdkafka's own log lines go.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::admission::Scope;
use super::gate::Gate;
use super::repeats::Repeats;
use crate::settings::KafkaSettings;

/// How long the question whether brokers still refuse this process may take: half of the time between two.
pub(super) const REFUSAL_QUESTION_LIMIT: Duration = Duration::from_secs(5);

/// What this process's clients, which all talk to the same brokers, said of their troubles.
static SAID: Mutex<Repeats<String>> = Mutex::new(Repeats::new());

/// A client's settings, to which those of its kind are added.
pub(super) fn config(kafka: &KafkaSettings, kind: Vec<(&'static str, String)>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.client_settings().into_iter().chain(kind) {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// One of librdkafka's log lines. Its warnings are about connections that it repairs by itself.
pub(super) fn log(level: RDKafkaLogLevel, part: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(part, line, "Kafka client failure");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if is_news(part) => {
            tracing::warn!(part, line, "Kafka client");
        }
        _ => tracing::debug!(part, line, "Kafka client"),
    }
}

/// An error that concerns no single request. The client repairs it by itself, but for a login that is wrong.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    if code == Some(RDKafkaErrorCode::PartitionEOF) {
        // No trouble; the consumer hears of it by polling.
        return;
    }
    let refused = code.is_some_and(|code| refused_scope(code).is_some());
    let kind = code.map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    match (is_news(&kind), refused) {
        (true, true) => tracing::error!(
            %error,
            reason,
            "Kafka refuses this worker; fix: set its name, password, certificates or rights, it goes on trying"
        ),
        (true, false) => tracing::warn!(%error, reason, "Kafka trouble; the client goes on trying"),
        (false, _) => tracing::debug!(%error, reason, "Kafka trouble goes on"),
    }
}

/// What the brokers refuse with an error code; `None` for errors that are no refusals.
pub(super) fn refused_scope(code: RDKafkaErrorCode) -> Option<Scope> {
    match code {
        RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed
        | RDKafkaErrorCode::SSL
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => Some(Scope::Client),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(Scope::Topic),
        _ => None,
    }
}

/// Whether a trouble of this kind was not logged for a while.
pub(super) fn is_news(kind: &str) -> bool {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.is_news(kind.to_owned(), Instant::now())
}

/// The answer of a call in which librdkafka waits for the brokers.
pub(super) async fn waited<T: Send + 'static>(
    call: impl FnOnce() -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let answer = tokio::task::spawn_blocking(call).await;
    answer.unwrap_or(Err(KafkaError::Canceled))
}

/// The context of clients that need no other callbacks. Its gate, if any, learns of errors.
#[derive(Debug, Clone, Default)]
pub(super) struct Logging(pub(super) Option<Gate>);

impl rdkafka::ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, part: &str, line: &str) {
        log(level, part, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
        if let Some(gate) = &self.0 {
            gate.met(&error);
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Logging {}
