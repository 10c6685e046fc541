//! Reads WAV, RF64 and BW64 with linear samples, from a file or from a pipe.
//!
//! No length in the header is trusted: reading stops at the end of the data, and the difference is reported.
//! A header that contradicts itself about the width of samples is refused, because either interpretation
//! could be noise.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use super::downmix::Downmix;
use super::raw::RawBlock;
use crate::audio::{AudioError, WavSamples};

/// Chunks skipped before the samples; real files have a handful.
const MAX_CHUNKS: usize = 1_000;

/// Bytes of a format chunk that are read: the extensible form has 40.
const FORMAT_BYTES: usize = 40;

/// Bytes read at a time: 64 KiB, 8,192 frames of 32-bit stereo.
const READ_BYTES: usize = 65_536;

/// Most channels: 8 without positions or 18 with positions are usable; 64 x 8 bytes is still far below one
/// read.
const MAX_CHANNELS: u16 = 64;

pub(super) struct WavInput {
    input: Box<dyn Read + Send>,
    path: PathBuf,
    rate_hz: u32,
    encoding: SampleEncoding,
    frame_bytes: usize,
    downmix: Downmix,
    has_layout: bool,
    /// Sample bytes still to come; unknown for headers written by streams.
    bytes_left: Option<u64>,
    declared_frames: Option<u64>,
    header_bytes: u64,
    frames_read: u64,
    buffer: Vec<u8>,
}

/// Encoding of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SampleEncoding {
    Unsigned8,
    Int16,
    Int24,
    Int32,
    Float32,
    Float64,
}

/// Why a WAV file was not opened.
pub(super) enum NotOpened {
    /// Its samples are not linear.
    NotLinear,
    /// Opening it failed.
    Failed(AudioError),
}

impl From<AudioError> for NotOpened {
    fn from(error: AudioError) -> Self {
        Self::Failed(error)
    }
}

impl WavInput {
    /// Reads up to the first sample.
    pub(super) fn open(mut input: Box<dyn Read + Send>, path: &Path) -> Result<Self, NotOpened> {
        let corrupt = |detail: &str| NotOpened::Failed(AudioError::corrupt(path, detail));
        let mut head = [0; 12];
        let mut position = fill(&mut input, &mut head, path)? as u64;
        let riff_bytes = u32_at(&head, 4);
        let mut long_data_bytes = None;
        let mut format = None;
        for _ in 0..MAX_CHUNKS {
            let mut chunk = [0; 8];
            let got = fill(&mut input, &mut chunk, path)?;
            position += got as u64;
            if got < chunk.len() {
                return Err(corrupt("it ends before its samples"));
            }
            let bytes = u32_at(&chunk, 4);
            match &chunk[..4] {
                b"data" => {
                    let format: Format = format.ok_or_else(|| corrupt("it has no format chunk"))?;
                    let declared = declared_bytes(bytes, riff_bytes, position, long_data_bytes);
                    if bytes == 0
                        && let Some(rest) = declared
                    {
                        input = empty_if_chunks_follow(input, rest, path)?;
                    }
                    return Self::new(input, path, &format, declared, position);
                }
                id @ (b"fmt " | b"ds64") => {
                    let mut content = [0; FORMAT_BYTES];
                    let wanted = FORMAT_BYTES.min(bytes as usize);
                    let got = fill(&mut input, &mut content[..wanted], path)?;
                    let rest = padded(bytes) - got as u64;
                    position += got as u64 + skip(&mut input, rest, path)?;
                    if id == b"fmt " {
                        if got < 16 {
                            return Err(corrupt("its format chunk is too short"));
                        }
                        format = Some(Format::parse(&content));
                    } else if got >= 16 {
                        long_data_bytes =
                            Some(u64::from(u32_at(&content, 12)) << 32 | u64::from(u32_at(&content, 8)));
                    }
                }
                _ => position += skip(&mut input, padded(bytes), path)?,
            }
        }
        Err(corrupt("it has too many chunks"))
    }

    fn new(
        input: Box<dyn Read + Send>,
        path: &Path,
        format: &Format,
        declared_bytes: Option<u64>,
        header_bytes: u64,
    ) -> Result<Self, NotOpened> {
        let encoding = match format.encoding() {
            Ok(encoding) => encoding,
            Err(EncodingError::NotLinear) => return Err(NotOpened::NotLinear),
            Err(EncodingError::Contradiction) => {
                return Err(AudioError::contradiction(path, format.contradiction()).into());
            }
        };
        let channels = usize::from(format.channels);
        let no_layout = || AudioError::channels(path, channels);
        if format.channels == 0 || format.channels > MAX_CHANNELS {
            return Err(no_layout().into());
        }
        let downmix = Downmix::for_wave_mask(format.channel_mask, channels).ok_or_else(no_layout)?;
        let frame_bytes = encoding.bytes() * channels;
        Ok(Self {
            input,
            path: path.to_owned(),
            rate_hz: format.rate_hz,
            encoding,
            frame_bytes,
            downmix,
            has_layout: channels <= 2 || format.channel_mask != 0,
            bytes_left: declared_bytes,
            declared_frames: declared_bytes.map(|bytes| bytes / frame_bytes as u64),
            header_bytes,
            frames_read: 0,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Replaces the contents of `raw` with the next samples; none means the end.
    pub(super) fn next(&mut self, raw: &mut RawBlock) -> Result<(), AudioError> {
        raw.samples.clear();
        raw.set_downmix(&self.downmix);
        let max_bytes = READ_BYTES / self.frame_bytes * self.frame_bytes;
        let wanted = self.bytes_left.map_or(max_bytes, |left| {
            usize::try_from(left).unwrap_or(max_bytes).min(max_bytes)
        });
        let got = fill(&mut self.input, &mut self.buffer[..wanted], &self.path)?;
        let frame_aligned = got / self.frame_bytes * self.frame_bytes;
        self.bytes_left = self.bytes_left.map(|left| left - got as u64);
        self.frames_read += (frame_aligned / self.frame_bytes) as u64;
        self.encoding
            .decode(&self.buffer[..frame_aligned], &mut raw.samples);
        Ok(())
    }

    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    pub(super) fn channels(&self) -> usize {
        self.downmix.channels()
    }

    /// The narrowest samples that hold those of the file.
    pub(super) fn depth(&self) -> WavSamples {
        match self.encoding {
            SampleEncoding::Unsigned8 | SampleEncoding::Int16 => WavSamples::Int16,
            SampleEncoding::Int24 => WavSamples::Int24,
            SampleEncoding::Int32 | SampleEncoding::Float32 | SampleEncoding::Float64 => WavSamples::Float32,
        }
    }

    /// Whether the positions of the channels are declared, not guessed.
    pub(super) fn has_layout(&self) -> bool {
        self.has_layout
    }

    /// Frames expected from the header and the size of the file together.
    pub(super) fn expected_frames(&self, file_bytes: Option<u64>) -> Option<u64> {
        let in_file =
            file_bytes.map(|bytes| bytes.saturating_sub(self.header_bytes) / self.frame_bytes as u64);
        match (self.declared_frames, in_file) {
            (Some(declared), Some(in_file)) => Some(declared.min(in_file)),
            (None, in_file) => in_file,
            (declared, None) => declared,
        }
    }

    /// Declared frames that are missing; `None` if the header declares no length.
    pub(super) fn missing_frames(&self) -> Option<u64> {
        self.declared_frames
            .map(|declared| declared.saturating_sub(self.frames_read))
    }
}

/// The relevant fields of a format chunk.
struct Format {
    tag: u16,
    channels: u16,
    rate_hz: u32,
    block_align: u16,
    bits: u16,
    channel_mask: u32,
}

impl Format {
    fn parse(content: &[u8; FORMAT_BYTES]) -> Self {
        const EXTENSIBLE: u16 = 0xfffe;
        let tag = u16_at(content, 0);
        let is_extensible = tag == EXTENSIBLE;
        Self {
            tag: if is_extensible { u16_at(content, 24) } else { tag },
            channels: u16_at(content, 2),
            rate_hz: u32_at(content, 4),
            block_align: u16_at(content, 12),
            bits: u16_at(content, 14),
            channel_mask: if is_extensible { u32_at(content, 20) } else { 0 },
        }
    }

    /// The encoding. Samples whose width is not a multiple of 8 bits (20 bits, 12) are stored in the upper
    /// bits of the next multiple, so the width alone decides. The frame size decides only where there is no
    /// width. A frame size that is too large is a leftover from another file where samples have 8, 16 or 32
    /// bits; where they have 24 bits or another width, some programs store integers and others floating point
    /// in the wider frame.
    fn encoding(&self) -> Result<SampleEncoding, EncodingError> {
        const LINEAR: u16 = 1;
        const FLOAT: u16 = 3;
        let in_frame = self.block_align.checked_div(self.channels).unwrap_or(0);
        let bytes = match self.bits.div_ceil(8) {
            0 => in_frame,
            by_width => by_width,
        };
        let encoding = match (self.tag, bytes) {
            (LINEAR, 1) => SampleEncoding::Unsigned8,
            (LINEAR, 2) => SampleEncoding::Int16,
            (LINEAR, 3) => SampleEncoding::Int24,
            (LINEAR, 4) => SampleEncoding::Int32,
            (FLOAT, 4) => SampleEncoding::Float32,
            (FLOAT, 8) => SampleEncoding::Float64,
            _ => return Err(EncodingError::NotLinear),
        };
        let is_wider = (bytes + 1..=8).contains(&in_frame);
        if is_wider && !matches!(self.bits, 8 | 16 | 32 | 64) {
            return Err(EncodingError::Contradiction);
        }
        Ok(encoding)
    }

    fn contradiction(&self) -> String {
        let (bits, frame, channels) = (self.bits, self.block_align, self.channels);
        format!("its header has {bits}-bit samples of {channels} channels in frames of {frame} bytes")
    }
}

/// Why a format chunk gives no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EncodingError {
    /// Its samples are not linear.
    NotLinear,
    /// It declares two widths.
    Contradiction,
}

impl SampleEncoding {
    fn bytes(self) -> usize {
        match self {
            Self::Unsigned8 => 1,
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Int32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// Integers are divided by 2^(bits-1), so full scale is -1 to just below 1.
    fn decode(self, bytes: &[u8], samples: &mut Vec<f32>) {
        match self {
            Self::Unsigned8 => samples.extend(bytes.iter().map(|byte| (f32::from(*byte) - 128.0) / 128.0)),
            Self::Int16 => {
                let (words, _) = bytes.as_chunks::<2>();
                samples.extend(
                    words
                        .iter()
                        .map(|word| f32::from(i16::from_le_bytes(*word)) / 32_768.0),
                );
            }
            Self::Int24 => {
                let (words, _) = bytes.as_chunks::<3>();
                let value = |word: &[u8; 3]| i32::from_le_bytes([0, word[0], word[1], word[2]]) >> 8;
                samples.extend(words.iter().map(|word| value(word) as f32 / 8_388_608.0));
            }
            Self::Int32 => {
                let (words, _) = bytes.as_chunks::<4>();
                samples.extend(
                    words
                        .iter()
                        .map(|word| i32::from_le_bytes(*word) as f32 / 2_147_483_648.0),
                );
            }
            Self::Float32 => {
                let (words, _) = bytes.as_chunks::<4>();
                samples.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
            }
            Self::Float64 => {
                let (words, _) = bytes.as_chunks::<8>();
                samples.extend(words.iter().map(|word| f64::from_le_bytes(*word) as f32));
            }
        }
    }
}

/// Length of the samples by the header, if known: streaming writers leave 0, the largest value of the field,
/// or (SoX, arecord) just below half of that. A length of 0 with bytes after it was never filled in; then the
/// rest of the RIFF chunk is samples.
fn declared_bytes(bytes: u32, riff_bytes: u32, data_start: u64, long: Option<u64>) -> Option<u64> {
    const STREAMED_HALF: std::ops::Range<u32> = 0x7fff_0000..0x8000_0000;
    const STREAMED_FULL: u32 = 0xffff_f000;
    if bytes == u32::MAX && long.is_some() {
        return long.filter(|bytes| *bytes != 0 && *bytes < u64::MAX >> 1);
    }
    if bytes >= STREAMED_FULL || STREAMED_HALF.contains(&bytes) {
        return None;
    }
    if bytes > 0 {
        return Some(u64::from(bytes));
    }
    let in_riff = (u64::from(riff_bytes) + 8).saturating_sub(data_start);
    (in_riff > 0 && riff_bytes < STREAMED_FULL).then_some(in_riff)
}

/// Returns an empty input if the `rest` bytes of a RIFF chunk begin with another of its chunks: then there
/// are no samples, and tags follow.
fn empty_if_chunks_follow(
    mut input: Box<dyn Read + Send>,
    rest: u64,
    path: &Path,
) -> Result<Box<dyn Read + Send>, AudioError> {
    let mut head = [0; 8];
    let got = fill(&mut input, &mut head, path)?;
    let is_name = head[..4]
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ');
    let is_chunk = got == head.len() && is_name && padded(u32_at(&head, 4)) + 8 <= rest;
    if is_chunk {
        return Ok(Box::new(io::empty()));
    }
    let head = Cursor::new(head).take(got as u64);
    Ok(Box::new(head.chain(input)))
}

/// Chunks begin at even offsets.
fn padded(bytes: u32) -> u64 {
    u64::from(bytes) + u64::from(bytes & 1)
}

/// Reads until `buffer` is full or the input ends, and returns the number of bytes read.
fn fill(input: &mut impl Read, buffer: &mut [u8], path: &Path) -> Result<usize, AudioError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(AudioError::read(path)(error)),
        }
    }
    Ok(filled)
}

fn skip(input: &mut impl Read, bytes: u64, path: &Path) -> Result<u64, AudioError> {
    io::copy(&mut input.by_ref().take(bytes), &mut io::sink()).map_err(AudioError::read(path))
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) | u32::from(u16_at(bytes, offset + 2)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(
        tag: u16,
        channels: u16,
        block_align: u16,
        bits: u16,
    ) -> Result<SampleEncoding, EncodingError> {
        let mut content = [0; FORMAT_BYTES];
        content[..2].copy_from_slice(&tag.to_le_bytes());
        content[2..4].copy_from_slice(&channels.to_le_bytes());
        content[12..14].copy_from_slice(&block_align.to_le_bytes());
        content[14..16].copy_from_slice(&bits.to_le_bytes());
        Format::parse(&content).encoding()
    }

    #[test]
    fn the_width_of_samples_counts_and_not_the_size_of_frames() {
        assert_eq!(encoding(1, 1, 0xffff, 16), Ok(SampleEncoding::Int16));
        assert_eq!(encoding(1, 1, 4, 16), Ok(SampleEncoding::Int16));
        assert_eq!(encoding(1, 2, 2, 16), Ok(SampleEncoding::Int16));
        assert_eq!(encoding(1, 1, 2, 8), Ok(SampleEncoding::Unsigned8));
        assert_eq!(encoding(3, 1, 8, 32), Ok(SampleEncoding::Float32));
        assert_eq!(encoding(1, 2, 6, 20), Ok(SampleEncoding::Int24));
        assert_eq!(encoding(1, 1, 2, 12), Ok(SampleEncoding::Int16));
        assert_eq!(encoding(1, 2, 8, 0), Ok(SampleEncoding::Int32));
    }

    #[test]
    fn two_widths_that_programs_read_differently_are_a_contradiction() {
        assert_eq!(encoding(1, 2, 8, 24), Err(EncodingError::Contradiction));
        assert_eq!(encoding(1, 1, 4, 20), Err(EncodingError::Contradiction));
        assert_eq!(encoding(1, 1, 4, 12), Err(EncodingError::Contradiction));
        assert_eq!(encoding(2, 1, 4, 4), Err(EncodingError::NotLinear));
    }

    #[test]
    fn lengths_that_streams_leave_behind_are_unknown() {
        assert_eq!(declared_bytes(u32::MAX, u32::MAX, 44, None), None);
        assert_eq!(declared_bytes(0, 0, 44, None), None);
        assert_eq!(declared_bytes(0, 36, 44, None), None);
        assert_eq!(declared_bytes(0, u32::MAX, 44, None), None);
        assert_eq!(declared_bytes(0x7fff_f000, 0x7fff_f024, 44, None), None);
        assert_eq!(declared_bytes(0, 100, 44, None), Some(64));
        assert_eq!(declared_bytes(400, 436, 44, None), Some(400));
        assert_eq!(
            declared_bytes(u32::MAX, u32::MAX, 80, Some(1 << 33)),
            Some(1 << 33)
        );
    }
}
