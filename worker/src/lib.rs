//! Splits songs into vocals and instrumental.
//!
//! Rooms, in the order in which data flows: [`audio`] decodes and encodes files as streams of 44.1 kHz stereo,
//! [`engine`] turns such a stream into two, [`onnx`] runs the model for it, [`model`] knows what a model is made for;
//! [`song`] joins them for one file, [`cli`] is what a person meets. [`storage`] is where songs and
//! stems lie, [`webhook`] tells callers, [`uploader`] is the role that joins both.

pub mod admin;
pub mod api;
pub mod audio;
pub mod cli;
pub mod engine;
pub mod error;
pub mod faults;
pub mod kafka;
pub mod model;
pub mod onnx;
pub mod outbound;
pub mod places;
pub mod processor;
pub mod service;
pub mod settings;
pub mod song;
pub mod storage;
pub mod telemetry;
pub mod uploader;
pub mod webhook;
pub mod work;
