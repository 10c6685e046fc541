//! Converts stems from 44.1 kHz to the sample rate of their file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::sink::UnpublishedFile;
use crate::audio::resample::Converter;
use crate::audio::{AudioError, SAMPLE_RATE_HZ, StereoBlock, StereoSink};

/// A sink that takes blocks at 44.1 kHz for a sink at another rate. Frames stay where they are in time.
pub struct ResampledSink {
    inner: Box<dyn StereoSink>,
    converter: Converter,
    path: PathBuf,
    song_frames: Arc<OnceLock<u64>>,
    ready: StereoBlock,
}

impl ResampledSink {
    /// `inner` writes the file `path` at `rate_hz`. The file gets the length `song_frames`, in frames at that
    /// rate, if it is set before the sink is finished, and else the length of the blocks, rounded.
    ///
    /// # Errors
    /// If the rate cannot be converted.
    pub fn new(
        inner: Box<dyn StereoSink>,
        path: &Path,
        rate_hz: u32,
        song_frames: Arc<OnceLock<u64>>,
    ) -> Result<Self, AudioError> {
        let converter = Converter::new(SAMPLE_RATE_HZ, rate_hz).ok_or_else(|| AudioError::SampleRate {
            path: path.to_owned(),
            rate_hz,
        })?;
        Ok(Self {
            inner,
            converter,
            path: path.to_owned(),
            song_frames,
            ready: StereoBlock::default(),
        })
    }
}

impl StereoSink for ResampledSink {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        self.ready.clear();
        self.converter
            .push(block, &mut self.ready)
            .map_err(AudioError::encode(&self.path))?;
        self.inner.write(&self.ready)
    }

    fn finish(mut self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        self.ready.clear();
        let finished = match self.song_frames.get() {
            Some(total) => self.converter.finish_at(*total, &mut self.ready),
            None => self.converter.finish(&mut self.ready),
        };
        finished.map_err(AudioError::encode(&self.path))?;
        self.inner.write(&self.ready)?;
        self.inner.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{OutputFormat, SourceOptions, WavSamples, create_at_rate, open, read_all};

    /// The frames of a file at `rate_hz` after `frames` frames at 44.1 kHz.
    fn file_frames(rate_hz: u32, frames: usize, song_frames: Option<u64>) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.wav");
        let inner = create_at_rate(&path, OutputFormat::Wav(WavSamples::Int16), rate_hz).unwrap();
        let length = Arc::new(OnceLock::new());
        let mut sink = Box::new(ResampledSink::new(inner, &path, rate_hz, Arc::clone(&length)).unwrap());
        sink.write(&StereoBlock::silence(frames)).unwrap();
        if let Some(song_frames) = song_frames {
            length.set(song_frames).unwrap();
        }
        let report = sink.finish().unwrap().publish().unwrap();
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!(source.info().rate_hz, rate_hz);
        read_all(&mut source);
        assert_eq!(source.file_frames(), Some(report.frames));
        report.frames
    }

    #[test]
    fn a_file_has_the_length_of_its_song() {
        assert_eq!(file_frames(48_000, 44_100, None), 48_000);
        assert_eq!(file_frames(48_000, 44_100, Some(48_001)), 48_001);
        assert_eq!(file_frames(96_000, 100_001, Some(217_688)), 217_688);
        assert_eq!(file_frames(8_000, 1, Some(1)), 1);
        assert_eq!(file_frames(44_100, 777, Some(777)), 777);
    }
}
