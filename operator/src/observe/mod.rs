//! Readings: lag and group members from Kafka, Deployments and pods from the Kubernetes cluster.
//!
//! Readings become the types of [`crate::decide`]: known, partial or unknown, with a time. Nothing here decides, and a
//! request without a response ends at its deadline.

pub mod api;
mod cluster_settings;
pub mod dependencies;
mod lag;
mod members;
mod missing_offsets;
pub mod poller;
mod queue;
mod reader;
mod template;
mod worker_reports;
pub mod workload;

pub use cluster_settings::{WorkloadTokens, cluster_settings};
pub use lag::{
    Adoption, LagWithAnomalies, OffsetAnomaly, PartitionOffsets, TopicOffsets, TopicRelation, compute_lag,
};
pub use members::read_groups;
pub use reader::{LagReader, Query, QueryResult, RequestCounts};
pub use worker_reports::FinishedTask;
