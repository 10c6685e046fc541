//! What the worker and the operator agree on, each thing defined once: messages, names, environment variables and the
//! settings of Kafka clients. And how both keep their memory small while they wait.
//!
//! Holds no client and decides nothing. The existing system speaks the same words, so changes here are additive.

pub mod allocator;
pub mod environment;
pub mod kafka;
pub mod message;
pub mod names;
pub mod offset_metadata;
