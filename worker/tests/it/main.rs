//! What the worker promises, tested from outside with real files and the real ONNX Runtime.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod command_line;
