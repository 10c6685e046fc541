//! How well a separation is done: mixes of real songs whose exact stems are known, and the measure of a stem.
//!
//! For the demo, the benchmarks and the quality tests. It uses of the worker only its [audio](separation::audio)
//! and must never know how separation works, or it would agree with it by construction.

pub mod files;
pub mod looping;
pub mod mix;
pub mod sdr;
pub mod six;

mod reverb;
