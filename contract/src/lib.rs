//! The contract of worker and operator: messages, names, environment variables, limits and the settings of Kafka clients.
//! Also the allocator settings that keep the memory of idle processes small, the waits between retries, and the findings of
//! `check`.
//!
//! Contains no client and no decisions. uvr5-api uses the same messages and names, so changes here must be additive.

pub mod allocator;
pub mod api_task;
pub mod backoff;
pub mod check;
pub mod environment;
pub mod failure_policy;
pub mod kafka;
pub mod message;
pub mod model;
pub mod names;
pub mod offset_metadata;
