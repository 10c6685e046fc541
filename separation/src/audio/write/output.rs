//! Creates the files of stems.

use std::path::Path;

use super::flac_out::FlacSink;
use super::wav_out::WavSink;
use crate::audio::{AudioError, OutputFormat, StereoSink};

/// Creates a file of `format` for `path`. It gets that name only when it is complete and published.
///
/// # Errors
/// If the file cannot be created, or this build lacks the format.
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
    use crate::audio::{FlacSamples, StereoBlock, WavSamples};

    #[test]
    fn full_scale_is_the_largest_sample_that_does_not_clip() {
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
            // One more step on the positive side clips.
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
