//! Reads and writes audio files. All audio in memory is stereo, planar `f32`, at 44.1 kHz except behind a
//! [`ResampledSink`].
//!
//! Sources are read and sinks are written block by block; nothing here may hold a complete song in memory.

mod error;
mod ffmpeg;
mod read;
mod resample;
mod waveform;
mod write;

use std::ops::Range;

pub use error::AudioError;
pub use read::{
    FfmpegUse, FileHead, FileSource, SourceInfo, SourceOptions, SourceReport, inspect_head, is_recognized,
    open, open_bytes,
};
pub use waveform::Waveform;
pub(crate) use write::directory_of;
pub use write::{
    FlacSamples, Mp3Bitrate, OutputFormat, PeakSpool, ResampledSink, SinkReport, UnpublishedFile, WavSamples,
    check_encoder, create, create_at_rate, create_mono_flac, part_file, remove_abandoned,
};

/// The one sample rate that models are trained at, in Hz.
pub const SAMPLE_RATE_HZ: u32 = 44_100;

/// The most frames in one block of a source: 16,384 frames x 2 channels x 4 bytes = 128 KiB.
pub const MAX_BLOCK_FRAMES: usize = 16_384;

/// A block of stereo audio, at 44.1 kHz except behind a [`ResampledSink`]: two channels of equal length, full scale at -1 and 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StereoBlock {
    /// Samples of the left channel.
    pub left: Vec<f32>,
    /// Samples of the right channel, as many as in the left one.
    pub right: Vec<f32>,
}

impl StereoBlock {
    /// Returns `frames` frames of silence.
    pub fn silence(frames: usize) -> Self {
        Self {
            left: vec![0.0; frames],
            right: vec![0.0; frames],
        }
    }

    /// Length in frames (one frame is one sample of each channel).
    pub fn frames(&self) -> usize {
        debug_assert_eq!(self.left.len(), self.right.len());
        self.left.len()
    }

    /// Whether it has no frames.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Removes all frames and keeps the allocation.
    pub fn clear(&mut self) {
        self.left.clear();
        self.right.clear();
    }

    /// Appends the frames of `other`.
    pub fn append(&mut self, other: &Self) {
        self.append_range(other, 0..other.frames());
    }

    /// Copies some of its frames.
    pub(crate) fn range(&self, frames: Range<usize>) -> Self {
        let mut block = Self::default();
        block.append_range(self, frames);
        block
    }

    /// Appends some of the frames of `other`.
    pub(crate) fn append_range(&mut self, other: &Self, frames: Range<usize>) {
        self.left.extend_from_slice(&other.left[frames.clone()]);
        self.right.extend_from_slice(&other.right[frames]);
    }

    /// The samples of both channels in turn.
    pub(crate) fn interleaved(&self) -> impl Iterator<Item = f32> {
        let frames = self.left.iter().zip(&self.right);
        frames.flat_map(|(left, right)| [*left, *right])
    }

    /// The largest absolute sample value; 0 for an empty block.
    pub fn peak(&self) -> f32 {
        let channel_peak = |samples: &[f32]| samples.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
        channel_peak(&self.left).max(channel_peak(&self.right))
    }
}

/// A stream of audio that is read block by block.
pub trait StereoSource: Send {
    /// Replaces the contents of `block` with the next frames, at most [`MAX_BLOCK_FRAMES`]; an empty block is
    /// the end.
    ///
    /// # Errors
    /// If the audio cannot be read or decoded any further.
    fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError>;

    /// The total number of frames, if known before reading; a hint, not a guarantee.
    fn expected_frames(&self) -> Option<u64>;

    /// Whether the expected number is only an estimate from the size of the file and its first frames.
    fn is_length_estimated(&self) -> bool {
        false
    }
}

/// A file that is written block by block. A sink that is dropped before it is published leaves no file.
pub trait StereoSink: Send {
    /// Appends frames.
    ///
    /// # Errors
    /// If they cannot be encoded or written.
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError>;

    /// Completes the encoding and flushes it to disk, still under a temporary name.
    ///
    /// # Errors
    /// If the end cannot be encoded or written.
    fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError>;
}

/// Reads the rest of `source`, for tests of written files.
#[cfg(test)]
fn read_all(source: &mut dyn StereoSource) -> StereoBlock {
    let (mut all, mut piece) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source.read(&mut piece).unwrap();
        if piece.is_empty() {
            return all;
        }
        all.append(&piece);
    }
}
