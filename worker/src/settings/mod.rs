//! Settings of the Kafka roles: read from options and environment, checked together before anything starts.
//!
//! Each option has the environment variable that the existing system and the operator set. Secrets are never printed.

mod consumer;
mod kafka;
mod model;
mod outbound;
mod storage;

pub use consumer::{ConsumedRole, ConsumerArguments, ConsumerSettings, DeleteInput, FailurePolicy};
pub use kafka::{KafkaArguments, KafkaSettings, Sasl};
pub use model::ModelArguments;
pub use outbound::{OutboundAllow, OutboundArguments, WebhookArguments};
pub use storage::{
    ObjectAddress, S3Arguments, S3Credentials, S3Settings, ScratchArguments, StagingArguments,
    StagingSettings,
};

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}; fix: {fix}")]
pub struct SettingError {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with its value.
    pub problem: String,
    /// What to do.
    pub fix: &'static str,
}
