//! The roles of `separation-worker`: songs come from Kafka or the command line, stems go to folders and object stores.
//!
//! Rooms, in the order in which data flows: [`settings`] are read and checked, [`outbound`] calls strangers, [`storage`]
//! is where songs and stems lie, [`kafka`] is a group's member and a producer, [`work`] is what a role is, [`service`]
//! joins them for one message at a time. [`processor`] and [`uploader`] are the roles, [`api`] takes songs over HTTP,
//! [`admin`] tells how a worker is, [`cli`] is what a person meets.

pub use separation::{audio, engine, error, model, onnx, places, song};

pub mod admin;
pub mod api;
pub mod cli;
mod clock;
pub mod faults;
pub mod kafka;
pub mod outbound;
pub mod processor;
pub mod service;
pub mod settings;
pub mod storage;
pub mod telemetry;
pub mod uploader;
pub mod webhook;
pub mod work;
