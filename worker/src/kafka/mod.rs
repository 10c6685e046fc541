//! Kafka as the roles see it: a consumer that holds one message at a time, and a producer.
//!
//! Knows groups, partitions and offsets; knows no tasks and no audio. librdkafka's own types stay in here.

mod admission;
mod callbacks;
mod client;
mod commit;
mod committed;
mod consumer;
mod error;
mod gate;
mod lag;
mod membership;
mod message;
mod producer;
mod progress;
mod repeats;
mod silence;
mod topics;
mod trailing;

pub use admission::Refusal;
pub use committed::Found;
pub use consumer::{Consumer, Polled};
pub(crate) use error::KAFKA_FIX;
pub use error::{CommitError, KafkaError, PublishError};
pub use gate::Gate;
pub use lag::{GroupLag, PartitionLag, PartitionOwner, read_group_lag};
pub use message::{Message, Place};
pub use producer::{Header, Producer};
pub use progress::{GroupProgress, PartitionProgress};
pub use topics::ensure_topics;
