//! What is seen: lag and group members in Kafka, Deployments and pods in the cluster.
//!
//! Readings end in the types of [`crate::decide`]: known, partial or unknown, with a time. Nothing here decides, and a
//! question that nobody answers ends at its deadline.

pub mod dependencies;
mod lag;
pub mod poller;
mod reader;
mod vanished;
pub mod workload;

pub use lag::{Adoption, Flag, LagFound, PartitionOffsets, Relation, TopicOffsets, lag_of};
pub use reader::{Found, LagReader, Query, QuestionCount};
