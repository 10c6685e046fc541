//! What the worker and the operator agree on, each thing defined once: messages, names, environment variables and the
//! settings of Kafka clients.
//!
//! Holds no client and does no I/O. The existing system speaks the same words, so changes here are additive.

pub mod environment;
pub mod kafka;
pub mod message;
pub mod names;
