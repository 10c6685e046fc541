//! Tests of the worker's public behavior with real files and the real ONNX Runtime.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod agreement;
mod api;
mod command_line;
mod commits;
mod formats;
mod fuzz_corpus;
mod hostile_audio;
mod in_memory;
mod model_store;
mod models;
mod msk_tokens;
mod oauth_proxy;
mod oracle;
mod service;
mod stopping;
mod storage;
mod streaming;
mod task_store;
mod uploader;
