//! ONNX Runtime: finds its library and runs a model. Imports no audio code.

mod interface;
mod library;
mod network;
mod provider;
mod tensors;

pub use library::{LibraryError, RUNTIME_VERSION};
pub use network::{LoadError, MAX_THREADS, ModelSource, OnnxNetwork, RuntimeOptions, default_threads};
pub use provider::Provider;
