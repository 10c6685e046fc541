//! The formats that stems are written in.

use std::path::Path;

use super::flac_out::FlacSink;
use super::wav_out::WavSink;
use super::{AudioError, StereoSink};

/// A format to write, always stereo at 44.1 kHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// WAV; beyond 4 GiB it becomes RF64.
    Wav(WavSamples),
    /// FLAC.
    Flac(FlacSamples),
    /// MP3 by LAME at its best variable bit rate (V0); only in builds with the feature `mp3`.
    Mp3,
}

/// How a WAV file holds its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WavSamples {
    /// 16-bit integers.
    Int16,
    /// 24-bit integers.
    Int24,
    /// 32-bit floating point: exact, and beyond full scale without clipping.
    Float32,
}

/// How a FLAC file holds its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlacSamples {
    /// 16-bit integers.
    Int16,
    /// 24-bit integers.
    Int24,
}

impl OutputFormat {
    /// The usual ending of file names, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav(_) => "wav",
            Self::Flac(_) => "flac",
            Self::Mp3 => "mp3",
        }
    }
}

/// Starts a file of `format` that will be called `path`. It appears under that name only when it is complete and
/// published. `expected_frames` is a hint that no format depends on.
///
/// # Errors
/// When the file cannot be created, or the format is not built in.
pub fn create(
    path: &Path,
    format: OutputFormat,
    expected_frames: Option<u64>,
) -> Result<Box<dyn StereoSink>, AudioError> {
    // Every header is completed at the end, with what was really written.
    let _ = expected_frames;
    match format {
        OutputFormat::Wav(samples) => Ok(Box::new(WavSink::create(path, samples)?)),
        OutputFormat::Flac(samples) => Ok(Box::new(FlacSink::create(path, samples)?)),
        #[cfg(feature = "mp3")]
        OutputFormat::Mp3 => Ok(Box::new(super::mp3_out::Mp3Sink::create(path)?)),
        #[cfg(not(feature = "mp3"))]
        OutputFormat::Mp3 => Err(AudioError::Mp3NotBuilt),
    }
}
