//! Kafka clients for the roles: a consumer that processes one message at a time, a producer, and the placement of
//! messages on partitions; for the command line, the lag of a group, the messages of a topic, and whether the credentials
//! suffice.
//!
//! Handles groups, partitions and offsets, not tasks or audio. Exposes no type of librdkafka except `KafkaError`.

mod access;
mod admission;
mod callbacks;
mod client;
mod commit;
mod committed;
mod consumer;
mod error;
mod fetched;
mod gate;
mod lag;
mod log_throttle;
mod membership;
mod message;
mod placement;
mod producer;
mod progress;
mod stall_detector;
mod tokens;
mod topic_reader;
mod topics;
mod trailing;

pub use access::check_role_access;
pub use admission::Refusal;
pub use commit::CommitTry;
pub use committed::CommittedState;
pub use consumer::{Consumer, Polled};
pub(crate) use error::KAFKA_FIX;
pub use error::{CommitError, KafkaError, PublishError};
pub use gate::Gate;
pub use lag::{GroupLag, PartitionLag, PartitionOwner, read_group_lag};
pub use message::{Message, Position};
pub use placement::{Placement, PlacementKind};
pub use producer::{Header, Producer};
pub use progress::{GroupProgress, PartitionProgress};
pub use tokens::{start_tokens, start_tokens_of_service};
pub use topic_reader::{ReadTopicError, StoredMessage, TopicReader};
pub use topics::ensure_topics;
