//! Writes the files of stems.

mod flac_out;
mod mp3_out;
mod output;
mod output_format;
mod quantize;
mod resampled;
mod sink;
mod spool;
mod wav_out;

pub use output::{check_encoder, create, create_at_rate, create_mono_flac};
pub use output_format::{FlacSamples, Mp3Bitrate, OutputFormat, WavSamples};
pub use resampled::ResampledSink;
pub(crate) use sink::directory_of;
pub use sink::{SinkReport, UnpublishedFile, part_file, remove_abandoned};
pub use spool::PeakSpool;
