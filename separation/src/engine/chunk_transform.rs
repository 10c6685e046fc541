//! One chunk of audio to the values that a model takes, and back.

use super::stft::{Analyzer, Synthesizer};
use super::tensors::ChunkTensor;
use crate::audio::StereoBlock;

/// Audio to values. One per thread.
pub(super) enum ForwardTransform {
    Waveform,
    Spectrum(Box<Analyzer>),
}

/// Values to audio. One per thread.
pub(super) enum InverseTransform {
    Waveform { frames: usize },
    Spectrum(Box<Synthesizer>),
}

impl ForwardTransform {
    pub(super) fn new(tensor: ChunkTensor) -> Self {
        match tensor {
            ChunkTensor::Waveform { .. } => Self::Waveform,
            ChunkTensor::Spectrum(spectrum) => Self::Spectrum(Box::new(Analyzer::new(spectrum))),
        }
    }

    /// Writes the values of `chunk`.
    ///
    /// # Panics
    /// If the sizes are not those of one chunk.
    pub(super) fn apply(&mut self, chunk: &StereoBlock, values: &mut [f32]) {
        match self {
            Self::Waveform => {
                let (left, right) = values.split_at_mut(values.len() / 2);
                left.copy_from_slice(&chunk.left);
                right.copy_from_slice(&chunk.right);
            }
            Self::Spectrum(analyzer) => analyzer.transform(chunk, values),
        }
    }
}

impl InverseTransform {
    pub(super) fn new(tensor: ChunkTensor) -> Self {
        match tensor {
            ChunkTensor::Waveform { frames } => Self::Waveform { frames },
            ChunkTensor::Spectrum(spectrum) => Self::Spectrum(Box::new(Synthesizer::new(spectrum))),
        }
    }

    /// Writes the audio of `values` to `chunk`.
    ///
    /// # Panics
    /// If `values` are not those of one chunk.
    pub(super) fn apply(&mut self, values: &[f32], chunk: &mut StereoBlock) {
        match self {
            Self::Waveform { frames } => {
                assert_eq!(values.len(), 2 * *frames, "one chunk");
                let (left, right) = values.split_at(*frames);
                chunk.clear();
                chunk.left.extend_from_slice(left);
                chunk.right.extend_from_slice(right);
            }
            Self::Spectrum(synthesizer) => synthesizer.transform(values, chunk),
        }
    }
}
