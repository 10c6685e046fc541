//! Writes MP3 with LAME at its best variable bit rate (V0), with the header that lets players drop the
//! encoder's delay.

use std::path::Path;

use mp3lame_encoder::{
    Builder, DualPcm, Encoder, FlushGap, Mode, Quality, VbrMode, max_required_buffer_size,
};

use super::sink::{PartFile, UnpublishedFile};
use crate::audio::{AudioError, SAMPLE_RATE_HZ, StereoBlock, StereoSink};

pub(super) struct Mp3Sink {
    part: PartFile,
    encoder: Encoder,
    frames: u64,
    clipped_samples: u64,
    encoded: Vec<u8>,
}

impl Mp3Sink {
    pub(super) fn create(path: &Path) -> Result<Self, AudioError> {
        let builder = Builder::new().ok_or_else(|| AudioError::encode(path)("LAME did not start"))?;
        let encoder = configured(builder).map_err(AudioError::encode(path))?;
        Ok(Self {
            part: PartFile::create(path)?,
            encoder,
            frames: 0,
            clipped_samples: 0,
            encoded: Vec::new(),
        })
    }
}

fn configured(builder: Builder) -> Result<Encoder, mp3lame_encoder::BuildError> {
    builder
        .with_num_channels(2)?
        .with_sample_rate(SAMPLE_RATE_HZ)?
        .with_mode(Mode::JointStereo)?
        .with_quality(Quality::NearBest)?
        .with_vbr_mode(VbrMode::Mtrh)?
        .with_vbr_quality(Quality::Best)?
        .with_to_write_vbr_tag(true)?
        .build()
}

impl StereoSink for Mp3Sink {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        self.encoded.clear();
        self.encoded.reserve(max_required_buffer_size(block.frames()));
        let pcm = DualPcm {
            left: block.left.as_slice(),
            right: block.right.as_slice(),
        };
        self.encoder
            .encode_to_vec(pcm, &mut self.encoded)
            .map_err(AudioError::encode(self.part.destination()))?;
        self.frames += block.frames() as u64;
        self.clipped_samples += beyond_full_scale(block);
        self.part.write(&self.encoded)
    }

    fn finish(mut self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        self.encoded.clear();
        // LAME's own limit for a flush: 7,200 bytes.
        self.encoded.reserve(7_200);
        self.encoder
            .flush_to_vec::<FlushGap>(&mut self.encoded)
            .map_err(AudioError::encode(self.part.destination()))?;
        self.part.write(&self.encoded)?;
        // Replaces the placeholder written as the first frame.
        let mut tag = Vec::with_capacity(self.encoder.lame_tag_size());
        self.encoder
            .lame_tag_encode_to_vec(&mut tag)
            .ok_or_else(|| AudioError::encode(self.part.destination())("LAME gave no header"))?;
        self.part.complete(&tag, self.frames, self.clipped_samples)
    }
}

/// Samples that players clip: LAME encodes them unchanged, and nearly every decoder outputs 16-bit integers.
fn beyond_full_scale(block: &StereoBlock) -> u64 {
    let samples = block.left.iter().chain(&block.right);
    samples.filter(|sample| sample.abs() > 1.0).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{SourceOptions, open, read_all};

    #[test]
    fn samples_beyond_full_scale_are_counted_in_an_mp3_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Box::new(Mp3Sink::create(&directory.path().join("out.mp3")).unwrap());
        for _ in 0..2 {
            sink.write(&StereoBlock {
                left: vec![1.0, 1.01, 0.0],
                right: vec![-1.0, -0.5, -3.0],
            })
            .unwrap();
        }
        assert_eq!(sink.finish().unwrap().report().clipped_samples, 4);
    }

    #[test]
    fn an_mp3_reads_back_with_its_exact_length_and_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.mp3");
        let wave: Vec<f32> = (0..60_000).map(|n| (n as f32 * 0.05).sin() * 0.5).collect();
        let block = StereoBlock {
            left: wave.clone(),
            right: wave,
        };
        let mut sink = Box::new(Mp3Sink::create(&path).unwrap());
        sink.write(&block).unwrap();
        sink.finish().unwrap().publish().unwrap();
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        let back = read_all(&mut source);
        assert_eq!(back.frames(), 60_000);
        let noise: f32 = back
            .left
            .iter()
            .zip(&block.left)
            .skip(2_000)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        let signal: f32 = block.left.iter().skip(2_000).map(|s| s.powi(2)).sum();
        assert!(noise < signal * 1e-3, "{}", noise / signal);
    }
}
