//! What all of our Kafka clients share: their settings, and where librdkafka's own log lines go.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::settings::KafkaSettings;

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
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(part, line, "Kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(part, line, "Kafka client");
        }
    }
}

/// An error that concerns no single request.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    tracing::warn!(%error, reason, "Kafka connection trouble");
}

/// The context of clients that need no callbacks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logging;

impl rdkafka::ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, part: &str, line: &str) {
        log(level, part, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Logging {}
