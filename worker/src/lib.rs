//! Splits songs into vocals and instrumental.
//!
//! Rooms, in the order in which data flows: [`audio`] decodes and encodes files as streams of 44.1 kHz stereo.

pub mod audio;
pub mod error;
