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

    /// The greatest positive sample that the format holds without clipping: 1 - 2^-(bits-1) for integers, which have
    /// one step fewer above zero than below it, and 1 for floating point and MP3.
    pub fn full_scale(self) -> f32 {
        match self {
            Self::Wav(WavSamples::Int16) | Self::Flac(FlacSamples::Int16) => 32_767.0 / 32_768.0,
            Self::Wav(WavSamples::Int24) | Self::Flac(FlacSamples::Int24) => 8_388_607.0 / 8_388_608.0,
            Self::Wav(WavSamples::Float32) | Self::Mp3 => 1.0,
        }
    }
}

/// Starts a file of `format` that will be called `path`. It appears under that name only when it is complete and
/// published.
///
/// # Errors
/// When the file cannot be created, or the format is not built in.
pub fn create(path: &Path, format: OutputFormat) -> Result<Box<dyn StereoSink>, AudioError> {
    match format {
        OutputFormat::Wav(samples) => Ok(Box::new(WavSink::create(path, samples)?)),
        OutputFormat::Flac(samples) => Ok(Box::new(FlacSink::create(path, samples)?)),
        #[cfg(feature = "mp3")]
        OutputFormat::Mp3 => Ok(Box::new(super::mp3_out::Mp3Sink::create(path)?)),
        #[cfg(not(feature = "mp3"))]
        OutputFormat::Mp3 => Err(AudioError::Mp3NotBuilt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::StereoBlock;

    #[test]
    fn full_scale_is_the_greatest_sample_that_does_not_clip() {
        let directory = tempfile::tempdir().unwrap();
        let check = |format: OutputFormat, is_integer: bool| {
            let clipped = |sample: f32| {
                let mut sink = create(&directory.path().join("stem"), format).unwrap();
                let block = StereoBlock {
                    left: vec![sample; 5_000],
                    right: vec![-sample; 5_000],
                };
                sink.write(&block).unwrap();
                sink.finish().unwrap().report().clipped_samples
            };
            assert_eq!(clipped(format.full_scale()), 0, "{format:?}");
            assert_eq!(format.full_scale() < 1.0, is_integer, "{format:?}");
            // One step more clips, on the positive side.
            assert_eq!(clipped(1.0), if is_integer { 5_000 } else { 0 }, "{format:?}");
        };
        check(OutputFormat::Wav(WavSamples::Int16), true);
        check(OutputFormat::Wav(WavSamples::Int24), true);
        check(OutputFormat::Wav(WavSamples::Float32), false);
        check(OutputFormat::Flac(FlacSamples::Int16), true);
        check(OutputFormat::Flac(FlacSamples::Int24), true);
        if cfg!(feature = "mp3") {
            check(OutputFormat::Mp3, false);
        }
    }
}
