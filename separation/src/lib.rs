//! Splits songs into vocals and instrumental.
//!
//! Rooms, in the order in which data flows: [`audio`] decodes and encodes files as streams of 44.1 kHz stereo,
//! [`engine`] turns such a stream into two, [`onnx`] runs the model for it, [`model`] knows what a model is made for;
//! [`song`] joins them for one file. [`error`] has the classes of errors that everything acts on, [`places`] knows where
//! things lie on this machine. Knows nothing of Kafka or of object stores.

pub mod audio;
pub mod engine;
pub mod error;
pub mod model;
pub mod onnx;
pub mod places;
pub mod song;
