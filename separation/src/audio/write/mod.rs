//! Writes the files of stems.

mod flac_out;
#[cfg(feature = "mp3")]
mod mp3_out;
mod output;
mod output_format;
mod quantize;
mod sink;
mod spool;
mod wav_out;

pub use output::create;
pub use output_format::{FlacSamples, OutputFormat, WavSamples};
pub(crate) use sink::directory_of;
pub use sink::{SinkReport, UnpublishedFile, part_file, remove_abandoned};
pub use spool::PeakSpool;
