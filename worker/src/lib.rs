//! The roles of `separation-worker`: songs come from Kafka or the command line, stems are written to directories and
//! object stores.
//!
//! Modules, in the order in which data flows: [`settings`] parses and validates the configuration, [`outbound`] calls
//! addresses that clients supply, [`storage`] stores songs and stems, [`task_store`] the tasks of the HTTP API v1,
//! [`model_store`] fetches models, [`kafka`] holds the consumer group member and the producer, [`work`] defines a role,
//! [`service`] runs a role for one message at a time. [`processor`] and [`uploader`] are the roles, [`api`] accepts songs
//! over HTTP, [`admin`] reports a worker's state, [`cli`] is the command line.

pub use separation::{audio, engine, error, locations, model, onnx, song};

pub mod admin;
pub mod api;
pub mod cli;
mod clock;
pub mod faults;
pub mod kafka;
pub mod model_store;
pub mod outbound;
pub mod processor;
pub mod service;
pub mod settings;
pub mod storage;
pub mod task_store;
pub mod telemetry;
pub mod uploader;
pub mod webhook;
pub mod work;
