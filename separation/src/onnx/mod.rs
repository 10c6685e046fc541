//! ONNX Runtime: finding its library, and running a model with it. Knows no audio.

mod library;
mod network;
mod provider;

pub use library::{LibraryError, RUNTIME_VERSION};
pub use network::{LoadError, MAX_THREADS, ModelSource, OnnxNetwork, RuntimeOptions, default_threads};
pub use provider::Provider;
