//! Splits songs into stems, such as vocals and instrumental.
//!
//! Modules, in the order of the data flow: [`audio`] decodes and encodes files as streams of 44.1 kHz stereo,
//! [`engine`] turns such a stream into stems, [`onnx`] runs the model for it, and [`model`] reads the model's tensor
//! contract; [`song`] joins them for one file. [`error`] classifies errors, [`locations`] locates files on
//! this machine. This crate uses neither Kafka nor an object store.

pub mod audio;
pub mod engine;
pub mod error;
pub mod locations;
pub mod model;
pub mod onnx;
pub mod song;
