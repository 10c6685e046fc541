//! Writes FLAC one frame at a time; the header, with the length and the MD5 of the samples, is completed at
//! the end.

use std::path::Path;

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};
use md5::{Digest, Md5};

use super::quantize::Quantizer;
use super::sink::{PartFile, UnpublishedFile};
use crate::audio::{AudioError, FlacSamples, StereoBlock, StereoSink};

/// Frames of audio in one FLAC frame, the usual number: 93 ms. At most one is buffered.
const BLOCK_FRAMES: usize = 4_096;

/// A FLAC file that is being written.
pub(super) struct FlacSink {
    part: PartFile,
    /// 2, or 1: the mean of left and right.
    channels: usize,
    bits: u32,
    rate_hz: u32,
    config: Verified<flacenc::config::Encoder>,
    stream_info: StreamInfo,
    frame: FrameBuf,
    quantizer: Quantizer,
    /// Interleaved samples of the frame that is being filled.
    gathered: Vec<i32>,
    md5: Md5,
    frames: u64,
    flac_frames: usize,
    /// Sizes in bytes of the smallest and the largest FLAC frame.
    extremes: (usize, usize),
    bytes: Vec<u8>,
}

impl FlacSink {
    pub(super) fn create(path: &Path, samples: FlacSamples, rate_hz: u32) -> Result<Self, AudioError> {
        Self::with_channels(2, path, samples, rate_hz)
    }

    /// A file with one channel, the mean of left and right.
    pub(super) fn create_mono(path: &Path, samples: FlacSamples, rate_hz: u32) -> Result<Self, AudioError> {
        Self::with_channels(1, path, samples, rate_hz)
    }

    fn with_channels(
        channels: usize,
        path: &Path,
        samples: FlacSamples,
        rate_hz: u32,
    ) -> Result<Self, AudioError> {
        let bits = match samples {
            FlacSamples::Int16 => 16,
            FlacSamples::Int24 => 24,
        };
        let mut config = flacenc::config::Encoder::default();
        config.block_size = BLOCK_FRAMES;
        // The fixed predictors take half of the time and save nothing over the adaptive one. Their sizes are
        // also only estimated, ignoring the limit of 14 on Rice parameters: loud 24-bit audio grew to several
        // times its size. The adaptive predictor is compared exactly and falls back to plain samples.
        config.subframe_coding.use_fixed = false;
        let mut sink = Self {
            part: PartFile::create(path)?,
            channels,
            bits,
            rate_hz,
            config: config
                .into_verified()
                .map_err(|(_, error)| AudioError::encode(path)(error))?,
            stream_info: StreamInfo::new(rate_hz as usize, channels, bits as usize)
                .map_err(AudioError::encode(path))?,
            frame: FrameBuf::with_size(channels, BLOCK_FRAMES).map_err(AudioError::encode(path))?,
            quantizer: Quantizer::new(bits),
            gathered: Vec::with_capacity(BLOCK_FRAMES * channels),
            md5: Md5::new(),
            frames: 0,
            flac_frames: 0,
            extremes: (usize::MAX, 0),
            bytes: Vec::new(),
        };
        let placeholder = sink.header([0; 16]);
        sink.part.write(&placeholder)?;
        Ok(sink)
    }

    fn push(&mut self, sample: f32) -> Result<(), AudioError> {
        self.gathered.push(self.quantizer.quantize(sample));
        if self.gathered.len() == BLOCK_FRAMES * self.channels {
            self.encode_gathered()?;
        }
        Ok(())
    }

    fn encode_gathered(&mut self) -> Result<(), AudioError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let frames = self.gathered.len() / self.channels;
        if frames < BLOCK_FRAMES {
            // The last block.
            self.frame.resize(frames.max(flacenc::constant::MIN_BLOCK_SIZE));
        }
        self.frame
            .fill_interleaved(&self.gathered)
            .map_err(AudioError::encode(self.part.destination()))?;
        let encoded =
            flacenc::encode_fixed_size_frame(&self.config, &self.frame, self.flac_frames, &self.stream_info)
                .map_err(AudioError::encode(self.part.destination()))?;
        let mut bits = ByteSink::new();
        encoded
            .write(&mut bits)
            .map_err(AudioError::encode(self.part.destination()))?;
        let encoded = bits.as_slice();
        self.extremes = (
            self.extremes.0.min(encoded.len()),
            self.extremes.1.max(encoded.len()),
        );
        self.part.write(encoded)?;
        self.bytes.clear();
        let sample_bytes = self.bits as usize / 8;
        for sample in &self.gathered {
            self.bytes
                .extend_from_slice(&sample.to_le_bytes()[..sample_bytes]);
        }
        self.md5.update(&self.bytes);
        self.flac_frames += 1;
        self.frames += frames as u64;
        self.gathered.clear();
        Ok(())
    }

    /// The signature and the only metadata block (RFC 9639, section 8.2).
    fn header(&self, md5: [u8; 16]) -> Vec<u8> {
        let mut header = b"fLaC".to_vec();
        // Last metadata block, of type 0, 34 bytes.
        header.extend_from_slice(&[0x80, 0, 0, 34]);
        let block = (BLOCK_FRAMES as u16).to_be_bytes();
        header.extend_from_slice(&block);
        header.extend_from_slice(&block);
        let (least, greatest) = if self.flac_frames == 0 {
            (0, 0)
        } else {
            self.extremes
        };
        for size in [least, greatest] {
            header.extend_from_slice(&(size as u32).to_be_bytes()[1..]);
        }
        // 20 bits of rate, 3 of channels minus one, 5 of bits minus one, 36 of frames (0 where 36 bits are
        // too few).
        let frames = if self.frames < 1 << 36 { self.frames } else { 0 };
        let packed = u64::from(self.rate_hz) << 44
            | (self.channels as u64 - 1) << 41
            | u64::from(self.bits - 1) << 36
            | frames;
        header.extend_from_slice(&packed.to_be_bytes());
        header.extend_from_slice(&md5);
        header
    }
}

impl StereoSink for FlacSink {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        if self.channels == 1 {
            let mut frames = block.left.iter().zip(&block.right);
            return frames.try_for_each(|(left, right)| self.push((left + right) / 2.0));
        }
        block.interleaved().try_for_each(|sample| self.push(sample))
    }

    fn finish(mut self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        self.encode_gathered()?;
        let md5 = std::mem::take(&mut self.md5).finalize().into();
        let header = self.header(md5);
        let clipped_samples = self.quantizer.clipped_samples();
        self.part.complete(&header, self.frames, clipped_samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{SourceOptions, StereoSource, open, read_all};

    /// Encodes, lets ffmpeg check the MD5, and decodes the result.
    fn check(samples: FlacSamples, rate_hz: u32, frames: usize) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.flac");
        let wave: Vec<f32> = (0..frames)
            .map(|n| ((n * n) % 1_999) as f32 / 2_048.0 - 0.5)
            .collect();
        let steps = if samples == FlacSamples::Int16 {
            32_768.0
        } else {
            8_388_608.0
        };
        let wave: Vec<f32> = wave.iter().map(|s| (s * steps).round() / steps).collect();
        let block = StereoBlock {
            right: wave.iter().rev().copied().collect(),
            left: wave,
        };
        let mut sink = Box::new(FlacSink::create(&path, samples, rate_hz).unwrap());
        sink.write(&block).unwrap();
        let report = sink.finish().unwrap().publish().unwrap();
        assert_eq!((report.frames, report.clipped_samples), (frames as u64, 0));
        let header_bytes = 42 + 32 * frames.div_ceil(BLOCK_FRAMES);
        let max_bytes = header_bytes + frames * 2 * if samples == FlacSamples::Int16 { 2 } else { 3 };
        assert!(
            report.bytes <= max_bytes as u64,
            "{} bytes for {frames} frames",
            report.bytes
        );
        check_md5(&path, samples);
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!(source.info().rate_hz, rate_hz);
        if rate_hz == 44_100 {
            assert_eq!(source.expected_frames(), Some(frames as u64));
            let back = read_all(&mut source);
            assert!(back == block);
        }
    }

    /// Lets ffmpeg decode the file and compares the MD5 of the samples with the stored one.
    fn check_md5(path: &Path, samples: FlacSamples) {
        let codec = match samples {
            FlacSamples::Int16 => "pcm_s16le",
            FlacSamples::Int24 => "pcm_s24le",
        };
        let run = std::process::Command::new("ffmpeg")
            .args(["-v", "error", "-err_detect", "crccheck+bitstream+explode", "-i"])
            .arg(path)
            .args(["-f", "md5", "-c:a", codec, "-"])
            .output()
            .unwrap();
        assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
        let bytes = std::fs::read(path).unwrap();
        let stored: String = bytes[26..42].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            String::from_utf8_lossy(&run.stdout).trim(),
            format!("MD5={stored}")
        );
    }

    #[test]
    fn mono_flac_is_the_mean_of_both_channels() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.flac");
        for frames in [1, 31, 4_096, 9_001] {
            let steps = |n: usize| ((n * n) % 1_999) as f32 - 1_000.0;
            let block = StereoBlock {
                left: (0..frames).map(|n| steps(n) / 16_384.0).collect(),
                right: (0..frames).map(|n| -steps(n + 7) / 16_384.0).collect(),
            };
            let mut sink = Box::new(FlacSink::create_mono(&path, FlacSamples::Int16, 44_100).unwrap());
            sink.write(&block).unwrap();
            sink.finish().unwrap().publish().unwrap();
            check_md5(&path, FlacSamples::Int16);
            let mut source = open(&path, &SourceOptions::default()).unwrap();
            assert_eq!(source.info().channels, 1);
            let back = read_all(&mut source);
            let mean: Vec<f32> = (0..frames)
                .map(|n| (steps(n) - steps(n + 7)) / 32_768.0)
                .collect();
            assert!(back.left == mean && back.right == mean, "{frames} frames");
        }
    }

    #[test]
    fn flac_of_both_widths_and_any_length_reads_back_exactly_with_its_md5() {
        for samples in [FlacSamples::Int16, FlacSamples::Int24] {
            for frames in [1, 15, 31, 4_095, 4_096, 4_097, 50_000] {
                check(samples, 44_100, frames);
            }
        }
    }

    #[test]
    fn flac_of_every_way_to_store_a_rate_is_decoded_by_ffmpeg() {
        // From a table, in kHz, in Hz, in tens of Hz, and in the header of the file only.
        for rate_hz in [48_000, 96_000, 37_000, 44_099, 66_150, 65_537] {
            check(FlacSamples::Int16, rate_hz, 9_000);
        }
    }
}
