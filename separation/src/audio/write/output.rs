//! Creates the files of stems.

use std::path::Path;

use super::flac_out::FlacSink;
use super::mp3_out::{self, Mp3Sink};
use super::wav_out::WavSink;
use crate::audio::{AudioError, FlacSamples, OutputFormat, SAMPLE_RATE_HZ, StereoSink};

/// Creates a file of `format` for `path`, at 44.1 kHz. It gets that name only when it is complete and published.
///
/// # Errors
/// If the file cannot be created, or this machine cannot encode the format.
pub fn create(path: &Path, format: OutputFormat) -> Result<Box<dyn StereoSink>, AudioError> {
    create_at_rate(path, format, SAMPLE_RATE_HZ)
}

/// Like [`create`], at a sample rate of `rate_hz`, which is also that of the blocks to write.
///
/// # Errors
/// As [`create`], and if the format cannot have this rate.
pub fn create_at_rate(
    path: &Path,
    format: OutputFormat,
    rate_hz: u32,
) -> Result<Box<dyn StereoSink>, AudioError> {
    format.check_rate(rate_hz)?;
    match format {
        OutputFormat::Wav(samples) => Ok(Box::new(WavSink::create(path, samples, rate_hz)?)),
        OutputFormat::Flac(samples) => Ok(Box::new(FlacSink::create(path, samples, rate_hz)?)),
        OutputFormat::Mp3(bitrate) => Ok(Box::new(Mp3Sink::create(path, bitrate, rate_hz)?)),
    }
}

/// Creates a FLAC file of 16 bits with one channel, the mean of left and right: a small file to listen to, not a stem.
/// `rate_hz` is its sample rate, which is also that of the blocks to write.
///
/// # Errors
/// As [`create_at_rate`].
pub fn create_mono_flac(path: &Path, rate_hz: u32) -> Result<Box<dyn StereoSink>, AudioError> {
    let samples = FlacSamples::Int16;
    OutputFormat::Flac(samples).check_rate(rate_hz)?;
    Ok(Box::new(FlacSink::create_mono(path, samples, rate_hz)?))
}

/// Checks that this machine can encode a format.
///
/// # Errors
/// If it lacks the program that encodes it; the error has the fix.
pub fn check_encoder(format: OutputFormat) -> Result<(), AudioError> {
    match format {
        OutputFormat::Wav(_) | OutputFormat::Flac(_) => Ok(()),
        OutputFormat::Mp3(_) => mp3_out::check(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Mp3Bitrate, StereoBlock, WavSamples};

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
        check(OutputFormat::Mp3(Mp3Bitrate::Variable), false);
    }
}
