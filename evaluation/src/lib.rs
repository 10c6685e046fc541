//! Measures separation quality: mixes real songs with exactly known stems, and computes the SDR of a
//! separated stem.
//!
//! Used by the demo, the benchmarks and the quality tests. Uses only the [audio](separation::audio) module of
//! `separation`, so that the measure is independent of the separation algorithm.

pub mod files;
pub mod looping;
pub mod mix;
pub mod pairs;
pub mod sdr;

mod reverb;
