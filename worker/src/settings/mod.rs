//! Settings of the Kafka roles: read from options and environment, validated together before anything starts.
//!
//! Each option has the environment variable that uvr5-api and the operator set. Secrets are never printed.

mod certificates;
mod consumer;
mod kafka;
mod kafka_sasl;
mod model;
mod model_address;
mod outbound;
mod storage;

pub use consumer::{ConsumedRole, ConsumerArguments, ConsumerSettings, DeleteInput};
pub use kafka::{KafkaArguments, KafkaSettings};
pub use kafka_sasl::Sasl;
pub use model::{ModelArguments, ModelDirectories, ModelReference, parse_megabytes};
pub use model_address::{AddressNames, ModelAddress, ModelLocation, Sha256Hex};
pub use outbound::{OutboundAllow, OutboundArguments, WebhookArguments};
pub use storage::{
    ObjectAddress, RetentionArguments, RetentionSettings, S3Arguments, S3ConnectionArguments, S3Credentials,
    S3Settings, ScratchArguments, StagingArguments, StagingSettings,
};

pub use separation_daemon::SettingError;
