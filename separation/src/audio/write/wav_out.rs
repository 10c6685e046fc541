//! Writes WAV, and RF64 (EBU Tech 3306) where the sizes outgrow 32 bits.
//!
//! Space for the 64-bit sizes is reserved as a `JUNK` chunk that every reader skips; only a file that needs
//! them uses it. Integers of 16 and 24 bits get the plain format chunk, which more programs read than the
//! extensible one.

use std::path::Path;

use super::quantize::Quantizer;
use super::sink::{PartFile, UnpublishedFile};
use crate::audio::{AudioError, StereoBlock, StereoSink, WavSamples};

/// The largest size of a chunk in plain WAV; 0xFFFFFFFF itself marks RF64.
const MAX_PLAIN_BYTES: u64 = 0xffff_fffe;

/// Content size of the `JUNK` or `ds64` chunk: three sizes of 8 bytes and the length of an empty table.
const LONG_SIZES_BYTES: u32 = 28;

const CHANNELS: u16 = 2;

pub(super) struct WavSink {
    part: PartFile,
    samples: WavSamples,
    rate_hz: u32,
    quantizer: Quantizer,
    frames: u64,
    max_plain_bytes: u64,
    buffer: Vec<u8>,
}

impl WavSink {
    pub(super) fn create(path: &Path, samples: WavSamples, rate_hz: u32) -> Result<Self, AudioError> {
        Self::create_with_limit(path, samples, rate_hz, MAX_PLAIN_BYTES)
    }

    fn create_with_limit(
        path: &Path,
        samples: WavSamples,
        rate_hz: u32,
        max_plain_bytes: u64,
    ) -> Result<Self, AudioError> {
        let mut sink = Self {
            part: PartFile::create(path)?,
            samples,
            rate_hz,
            quantizer: Quantizer::new(if samples == WavSamples::Int16 { 16 } else { 24 }),
            frames: 0,
            max_plain_bytes,
            buffer: Vec::new(),
        };
        let header = sink.header();
        sink.part.write(&header)?;
        Ok(sink)
    }

    /// The header for the data written so far; its length is constant.
    fn header(&self) -> Vec<u8> {
        let sample_bytes = sample_bytes(self.samples);
        let frame_bytes = CHANNELS * sample_bytes;
        let data_bytes = self.frames * u64::from(frame_bytes);
        let is_float = self.samples == WavSamples::Float32;
        let mut format = Vec::new();
        format.extend_from_slice(b"fmt ");
        format.extend_from_slice(&(if is_float { 18_u32 } else { 16 }).to_le_bytes());
        format.extend_from_slice(&(if is_float { 3_u16 } else { 1 }).to_le_bytes());
        format.extend_from_slice(&CHANNELS.to_le_bytes());
        format.extend_from_slice(&self.rate_hz.to_le_bytes());
        format.extend_from_slice(&(self.rate_hz * u32::from(frame_bytes)).to_le_bytes());
        format.extend_from_slice(&frame_bytes.to_le_bytes());
        format.extend_from_slice(&(sample_bytes * 8).to_le_bytes());
        if is_float {
            // All formats except integers have an extension size field, here 0, and a `fact` chunk with the
            // frame count.
            format.extend_from_slice(&0_u16.to_le_bytes());
            format.extend_from_slice(b"fact");
            format.extend_from_slice(&4_u32.to_le_bytes());
            format.extend_from_slice(&u32::try_from(self.frames).unwrap_or(u32::MAX).to_le_bytes());
        }
        // "WAVE", the reserved chunk, the format and the head of the data; every frame has an even length.
        let riff_bytes = 4 + 8 + u64::from(LONG_SIZES_BYTES) + format.len() as u64 + 8 + data_bytes;
        let is_long = riff_bytes > self.max_plain_bytes;
        let short = |bytes: u64| {
            if is_long {
                u32::MAX
            } else {
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }
        };
        let mut header = Vec::new();
        header.extend_from_slice(if is_long { b"RF64" } else { b"RIFF" });
        header.extend_from_slice(&short(riff_bytes).to_le_bytes());
        header.extend_from_slice(b"WAVE");
        header.extend_from_slice(if is_long { b"ds64" } else { b"JUNK" });
        header.extend_from_slice(&LONG_SIZES_BYTES.to_le_bytes());
        let sizes = if is_long {
            [riff_bytes, data_bytes, self.frames]
        } else {
            [0; 3]
        };
        for size in sizes {
            header.extend_from_slice(&size.to_le_bytes());
        }
        header.extend_from_slice(&0_u32.to_le_bytes());
        header.extend_from_slice(&format);
        header.extend_from_slice(b"data");
        header.extend_from_slice(&short(data_bytes).to_le_bytes());
        header
    }
}

impl StereoSink for WavSink {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        self.buffer.clear();
        let samples = block.interleaved();
        let quantizer = &mut self.quantizer;
        match self.samples {
            WavSamples::Float32 => self.buffer.extend(samples.flat_map(f32::to_le_bytes)),
            WavSamples::Int16 | WavSamples::Int24 => {
                let bytes = usize::from(sample_bytes(self.samples));
                for sample in samples {
                    self.buffer
                        .extend_from_slice(&quantizer.quantize(sample).to_le_bytes()[..bytes]);
                }
            }
        }
        self.part.write(&self.buffer)?;
        self.frames += block.frames() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        let header = self.header();
        let clipped_samples = self.quantizer.clipped_samples();
        self.part.complete(&header, self.frames, clipped_samples)
    }
}

fn sample_bytes(samples: WavSamples) -> u16 {
    match samples {
        WavSamples::Int16 => 2,
        WavSamples::Int24 => 3,
        WavSamples::Float32 => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{SourceOptions, StereoSource, open};

    fn check(samples: WavSamples, max_plain_bytes: u64, expected_head: &[u8; 4]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.wav");
        let wave: Vec<f32> = (-500..500).map(|n| n as f32 / 512.0).collect();
        let block = StereoBlock {
            right: wave.iter().map(|s| -s).collect(),
            left: wave,
        };
        let mut sink = Box::new(WavSink::create_with_limit(&path, samples, 44_100, max_plain_bytes).unwrap());
        sink.write(&block).unwrap();
        sink.finish().unwrap().publish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..4], expected_head);
        if expected_head == b"RIFF" {
            assert_eq!(
                u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize,
                bytes.len() - 8
            );
        }
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!(source.expected_frames(), Some(1_000));
        let mut back = StereoBlock::default();
        source.read(&mut back).unwrap();
        assert!(back == block);
        source.read(&mut back).unwrap();
        assert_eq!(source.report().missing_frames, Some(0));
        check_ffmpeg(&path, &block);
    }

    /// Compares with ffmpeg's decoding of the same file.
    fn check_ffmpeg(path: &Path, block: &StereoBlock) {
        let run = std::process::Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(path)
            .args(["-f", "f32le", "-"])
            .output()
            .unwrap();
        assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
        let (words, _) = run.stdout.as_chunks::<4>();
        let read: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let written: Vec<f32> = block
            .left
            .iter()
            .zip(&block.right)
            .flat_map(|(l, r)| [*l, *r])
            .collect();
        assert!(read == written);
    }

    #[test]
    fn every_sample_format_reads_back_exactly() {
        for samples in [WavSamples::Int16, WavSamples::Int24, WavSamples::Float32] {
            check(samples, MAX_PLAIN_BYTES, b"RIFF");
        }
    }

    #[test]
    fn sizes_beyond_the_limit_become_rf64() {
        for samples in [WavSamples::Int16, WavSamples::Int24, WavSamples::Float32] {
            check(samples, 1_000, b"RF64");
        }
    }
}
