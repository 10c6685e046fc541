//! Audio in and out of files: everything inside is stereo, 44.1 kHz, planar `f32`.
//!
//! A source is read block by block and a sink is written block by block; nothing here may hold a whole song.

mod aac;
mod bytes;
mod caf;
mod coded_pcm;
mod containers;
mod downmix;
mod edits;
mod encoder_tag;
mod error;
mod fallback;
mod ffmpeg;
mod flac_out;
mod flac_streams;
mod frame_stream;
mod frames;
mod guard;
mod matroska;
#[cfg(feature = "mp3")]
mod mp3_out;
mod ogg;
mod outline;
mod output;
mod packets;
mod quantise;
mod quicktime_pcm;
mod raw;
mod resample;
mod section;
mod signatures;
mod sink;
mod sniff;
mod source;
mod spool;
mod tags;
mod wav_in;
mod wav_out;

pub use error::AudioError;
pub use output::{FlacSamples, OutputFormat, WavSamples, create};
pub(crate) use sink::directory_of;
pub use sink::{SinkReport, UnpublishedFile, part_file, remove_abandoned};
pub use source::{FfmpegUse, FileSource, SourceInfo, SourceOptions, SourceReport, open, open_bytes};
pub use spool::PeakSpool;

/// The one sample rate that models are trained at and that stems are written with, in Hz.
pub const SAMPLE_RATE_HZ: u32 = 44_100;

/// The most frames that a source puts into one block: 16,384 frames x 2 channels x 4 bytes = 128 KiB.
pub const MAX_BLOCK_FRAMES: usize = 16_384;

/// A stretch of stereo audio at 44.1 kHz: two channels of equal length, full scale at -1 and 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StereoBlock {
    /// Samples of the left channel.
    pub left: Vec<f32>,
    /// Samples of the right channel, as many as of the left.
    pub right: Vec<f32>,
}

impl StereoBlock {
    /// A block of `frames` frames of silence.
    pub fn silence(frames: usize) -> Self {
        Self {
            left: vec![0.0; frames],
            right: vec![0.0; frames],
        }
    }

    /// The number of frames (one frame is one sample of each channel).
    pub fn frames(&self) -> usize {
        debug_assert_eq!(self.left.len(), self.right.len());
        self.left.len()
    }

    /// Whether there is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Forgets all frames and keeps the memory.
    pub fn clear(&mut self) {
        self.left.clear();
        self.right.clear();
    }

    /// Appends the frames of `other`.
    pub fn append(&mut self, other: &Self) {
        self.left.extend_from_slice(&other.left);
        self.right.extend_from_slice(&other.right);
    }

    /// The greatest absolute sample value; 0 for an empty block.
    pub fn peak(&self) -> f32 {
        let channel_peak = |samples: &[f32]| samples.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
        channel_peak(&self.left).max(channel_peak(&self.right))
    }
}

/// Where audio comes from, block by block.
pub trait StereoSource: Send {
    /// Replaces the contents of `block` with the next frames, at most [`MAX_BLOCK_FRAMES`]; an empty block is the end.
    ///
    /// # Errors
    /// When the audio cannot be read or decoded any further.
    fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError>;

    /// How many frames all blocks together will have, where that is known before reading; a hint, not a promise.
    fn expected_frames(&self) -> Option<u64>;
}

/// Where audio goes to, block by block. A sink that is dropped before it is published leaves nothing behind.
pub trait StereoSink: Send {
    /// Takes the next frames.
    ///
    /// # Errors
    /// When they cannot be encoded or written.
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError>;

    /// Completes the encoding and flushes it to disk, still under a temporary name.
    ///
    /// # Errors
    /// When the end cannot be encoded or written.
    fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError>;
}

/// All that is left in `source`, for tests of what was written.
#[cfg(test)]
fn read_all(source: &mut dyn StereoSource) -> StereoBlock {
    let (mut whole, mut piece) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source.read(&mut piece).unwrap();
        if piece.is_empty() {
            return whole;
        }
        whole.append(&piece);
    }
}
