//! Opens a file of any known format as a stream of 44.1 kHz stereo.
//!
//! The content alone decides which decoder reads it. Memory does not grow with the length of the file, and no
//! size in a header decides an allocation.

use std::io::{self, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use symphonia::core::io::MediaSource;

use super::coded_pcm;
use super::fallback::{self, FfmpegSupport};
use super::ffmpeg_in;
use super::outline::default_track_index;
use super::packets::PacketInput;
use super::raw::RawBlock;
use super::sniff::{Container, Sniffed, Unrecognized, sniff};
use super::wav_in::{NotOpened, WavInput};
use crate::audio::ffmpeg::{self, FfmpegError, FfmpegMessages};
use crate::audio::resample::{Converter, converted_frames};
use crate::audio::{AudioError, MAX_BLOCK_FRAMES, SAMPLE_RATE_HZ, StereoBlock, StereoSource, WavSamples};

/// Samples beyond this are invalid, like NaN: full scale is 1, and 1e10 is 200 dB above it.
const MAX_SAMPLE: f32 = 1e10;

/// Whether the ffmpeg program may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FfmpegUse {
    /// For files that our own decoders refuse, if it is installed.
    Allowed,
    /// Never.
    Forbidden,
}

/// Limits of reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOptions {
    /// The longest accepted audio; unlimited by default.
    pub max_duration: Option<Duration>,
    /// Whether ffmpeg may be used; allowed by default.
    pub ffmpeg: FfmpegUse,
    /// The longest wait for the next samples from ffmpeg; 30 seconds by default.
    pub ffmpeg_timeout: Duration,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            max_duration: None,
            ffmpeg: FfmpegUse::Allowed,
            ffmpeg_timeout: ffmpeg::TIMEOUT,
        }
    }
}

/// The detected format of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// Container or codec: "wav", "flac", "mp3", "mp2", "ogg vorbis", "opus", "aac", "alac", "aiff", "caf", …
    pub format: String,
    /// Whether ffmpeg decodes it.
    pub via_ffmpeg: bool,
    /// Sample rate of the file in Hz; that of the first stream if several are chained.
    pub rate_hz: u32,
    /// Channels of the file; those of the first stream if several are chained.
    pub channels: usize,
    /// The narrowest samples that hold those of the file; `None` for lossy formats, which have no bit depth.
    /// For files that ffmpeg decodes, whose bit depth is not known, 24 bits.
    pub depth: Option<WavSamples>,
    /// Length in frames at 44.1 kHz, if the file declares one; a hint.
    pub expected_frames: Option<u64>,
}

/// Counts from reading a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Frames read, at 44.1 kHz.
    pub frames: u64,
    /// Samples that were NaN, infinite or beyond 1e10, and were replaced by 0.
    pub replaced_samples: u64,
    /// Packets that could not be decoded, each replaced by silence of its length.
    pub skipped_packets: u64,
    /// Declared frames, at the file's rate, that were missing; `None` if the file declares no length.
    pub missing_frames: Option<u64>,
    /// Errors after which ffmpeg continued; how much audio they affected is unknown.
    pub ffmpeg_errors: u64,
}

/// A file that is read as 44.1 kHz stereo.
pub struct FileSource {
    path: PathBuf,
    info: SourceInfo,
    input: Input,
    converter: Converter,
    /// Input rate of the converter, in Hz.
    converter_rate_hz: u32,
    limit: Option<(Duration, u64)>,
    raw: RawBlock,
    mixed: StereoBlock,
    ready: StereoBlock,
    ready_from: usize,
    is_ended: bool,
    coded: coded_pcm::CodedPcmDetector,
    report: SourceReport,
    /// Frames read, at the file's rate; `None` once the rate has changed.
    file_frames: Option<u64>,
    ffmpeg: Option<FfmpegMessages>,
}

enum Input {
    Wav(WavInput),
    Packets(Box<PacketInput>),
}

#[derive(Clone)]
enum Origin {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

/// Opens `path`, whatever its name, for reading as 44.1 kHz stereo.
///
/// # Errors
/// If it cannot be read, is not audio, is damaged beyond use, or has an unsupported format.
pub fn open(path: &Path, options: &SourceOptions) -> Result<FileSource, AudioError> {
    let metadata = path.metadata().map_err(AudioError::read(path))?;
    // Checked before opening: opening a named pipe would block until it has a writer.
    if !metadata.is_file() {
        let detail = if metadata.is_dir() {
            "it is a directory"
        } else {
            "it is not a regular file"
        };
        return Err(AudioError::not_audio(path, detail));
    }
    open_origin(&Origin::File(path.to_owned()), path, options)
}

/// Whether the content of `path` begins like audio or a container of audio, in a format that [`open`] may be able to
/// read with ffmpeg.
///
/// # Errors
/// If it cannot be read.
pub fn is_recognized(path: &Path) -> Result<bool, AudioError> {
    let unreadable = AudioError::read(path);
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Ok(false);
    }
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let sniffed = sniff(&mut file).map_err(unreadable)?;
    Ok(matches!(sniffed, Ok(_) | Err(Unrecognized::ForFfmpeg(_))))
}

/// The length that the header of a file declares, by its first bytes; `is_complete` if these are all of it. None if the
/// header declares none, or only the end of the file shows it.
pub(super) fn declared_duration(head: &[u8], is_complete: bool, sniffed: Sniffed) -> Option<Duration> {
    if sniffed.container == Container::Ogg && !is_complete {
        return None;
    }
    let origin = Origin::Bytes(head.into());
    let (_, input) = open_recognized(&origin, Path::new("(bytes)"), sniffed).ok()?;
    let frames = match &input {
        Input::Wav(wav) => wav.expected_frames(is_complete.then_some(head.len() as u64)),
        Input::Packets(packets) if packets.is_length_estimated() => None,
        Input::Packets(packets) => packets.expected_frames(),
    };
    Duration::try_from_secs_f64(frames? as f64 / f64::from(input.rate_hz())).ok()
}

/// Opens a file's content from memory, without ffmpeg: for small files and for fuzzing.
///
/// # Errors
/// As [`open`].
pub fn open_bytes(bytes: Vec<u8>, options: &SourceOptions) -> Result<FileSource, AudioError> {
    open_origin(&Origin::Bytes(bytes.into()), Path::new("(bytes)"), options)
}

fn open_origin(origin: &Origin, path: &Path, options: &SourceOptions) -> Result<FileSource, AudioError> {
    let unreadable = AudioError::read(path);
    let mut track = 0;
    let refusal = match sniff(&mut origin.open().map_err(unreadable)?).map_err(unreadable)? {
        Ok(sniffed) => match open_recognized(origin, path, sniffed) {
            Ok((format, input)) => return FileSource::new(path, format, false, input, origin, options),
            Err(error) if FfmpegSupport::after(&error) == FfmpegSupport::None => return Err(error),
            Err(refusal) => {
                let mut input = origin.open().map_err(unreadable)?;
                track = default_track_index(&mut input, sniffed).map_err(unreadable)?;
                refusal
            }
        },
        Err(unrecognized) => {
            let detail = unrecognized.to_string();
            match unrecognized {
                Unrecognized::Unknown => AudioError::not_audio(path, detail),
                Unrecognized::ForFfmpeg(_) => AudioError::unsupported(path, detail),
                Unrecognized::Foreign(_)
                | Unrecognized::Empty
                | Unrecognized::OnlyTags
                | Unrecognized::Zeros => return Err(AudioError::not_audio(path, detail)),
            }
        }
    };
    let (Origin::File(file), FfmpegUse::Allowed) = (origin, options.ffmpeg) else {
        return Err(refusal);
    };
    let decoded = match ffmpeg_in::decode(file, track, options.ffmpeg_timeout) {
        Ok(decoded) => decoded,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(fallback::without_program(refusal));
        }
        Err(source) => return Err(unreadable(source)),
    };
    let input = WavInput::open(Box::new(decoded.stream), path)
        .map_err(|_| fallback::neither(refusal, decoded.messages.error()))?;
    if !input.has_layout() {
        return Err(AudioError::channels(path, input.channels()));
    }
    let input = Input::Wav(input);
    let mut source = FileSource::new(path, "ffmpeg".to_owned(), true, input, origin, options)?;
    source.ffmpeg = Some(decoded.messages);
    Ok(source)
}

fn open_recognized(origin: &Origin, path: &Path, sniffed: Sniffed) -> Result<(String, Input), AudioError> {
    let unreadable = AudioError::read(path);
    if sniffed.container == Container::Wav {
        let mut input = origin.open().map_err(unreadable)?;
        input
            .seek(io::SeekFrom::Start(sniffed.offset))
            .map_err(unreadable)?;
        match WavInput::open(Box::new(io::BufReader::new(input)), path) {
            Ok(input) => return Ok(("wav".to_owned(), Input::Wav(input))),
            Err(NotOpened::Failed(error)) => return Err(error),
            Err(NotOpened::NotLinear) => {}
        }
    }
    let input = PacketInput::open(&mut || origin.open(), path, sniffed)?;
    Ok((input.format().to_owned(), Input::Packets(Box::new(input))))
}

impl Origin {
    fn open(&self) -> io::Result<Box<dyn MediaSource>> {
        Ok(match self {
            Self::File(path) => Box::new(std::fs::File::open(path)?),
            Self::Bytes(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
        })
    }

    fn len(&self) -> Option<u64> {
        match self {
            Self::File(path) => path.metadata().ok().map(|metadata| metadata.len()),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
        }
    }
}

impl Input {
    fn next(&mut self, raw: &mut RawBlock) -> Result<(), AudioError> {
        match self {
            Self::Wav(input) => input.next(raw),
            Self::Packets(input) => input.next(raw),
        }
    }

    fn rate_hz(&self) -> u32 {
        match self {
            Self::Wav(input) => input.rate_hz(),
            Self::Packets(input) => input.rate_hz(),
        }
    }

    fn depth(&self) -> Option<WavSamples> {
        match self {
            Self::Wav(input) => Some(input.depth()),
            Self::Packets(input) => input.depth(),
        }
    }

    fn is_length_estimated(&self) -> bool {
        match self {
            Self::Wav(_) => false,
            Self::Packets(input) => input.is_length_estimated(),
        }
    }
}

impl FileSource {
    fn new(
        path: &Path,
        format: String,
        via_ffmpeg: bool,
        input: Input,
        origin: &Origin,
        options: &SourceOptions,
    ) -> Result<Self, AudioError> {
        let file_bytes = if via_ffmpeg { None } else { origin.len() };
        let (rate_hz, channels, frames) = match &input {
            Input::Wav(wav) => (wav.rate_hz(), wav.channels(), wav.expected_frames(file_bytes)),
            Input::Packets(packets) => (packets.rate_hz(), packets.channels(), packets.expected_frames()),
        };
        let converter = converter(path, rate_hz)?;
        let expected_frames = frames.map(|frames| converted_frames(frames, rate_hz, SAMPLE_RATE_HZ));
        let limit = options.max_duration.map(|limit| (limit, frames_of(limit)));
        if let (Some((limit, max_frames)), Some(expected)) = (limit, expected_frames)
            && expected > max_frames
            && !input.is_length_estimated()
        {
            return Err(AudioError::too_long(path, limit));
        }
        // ffmpeg sends every format as floating point.
        let depth = if via_ffmpeg {
            Some(WavSamples::Int24)
        } else {
            input.depth()
        };
        Ok(Self {
            path: path.to_owned(),
            info: SourceInfo {
                format,
                via_ffmpeg,
                rate_hz,
                channels,
                depth,
                expected_frames,
            },
            input,
            converter,
            converter_rate_hz: rate_hz,
            limit,
            raw: RawBlock::default(),
            mixed: StereoBlock::default(),
            ready: StereoBlock::default(),
            ready_from: 0,
            is_ended: false,
            coded: coded_pcm::CodedPcmDetector::default(),
            report: SourceReport::default(),
            file_frames: Some(0),
            ffmpeg: None,
        })
    }

    /// The detected format.
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// Counts so far; complete once [`StereoSource::read`] has returned an empty block.
    pub fn report(&self) -> SourceReport {
        let (skipped_packets, missing_frames) = match &self.input {
            Input::Wav(wav) => (0, wav.missing_frames()),
            Input::Packets(packets) => (packets.skipped_packets(), packets.missing_frames()),
        };
        SourceReport {
            skipped_packets,
            missing_frames,
            ffmpeg_errors: self.ffmpeg.as_ref().map_or(0, FfmpegMessages::errors),
            ..self.report
        }
    }

    /// Frames read so far at the file's own rate, [`SourceInfo::rate_hz`]; `None` if the rate changed within
    /// the file.
    pub fn file_frames(&self) -> Option<u64> {
        self.file_frames
    }

    /// If the pipe from ffmpeg breaks, only ffmpeg knows the reason.
    fn with_ffmpeg_error(&self, error: AudioError) -> AudioError {
        match self.ffmpeg.as_ref().and_then(FfmpegMessages::error) {
            Some(FfmpegError::Specific(detail) | FfmpegError::Vague(detail)) => AudioError::Ffmpeg {
                path: self.path.clone(),
                detail,
            },
            Some(FfmpegError::NoTrack) | None => error,
        }
    }

    /// Decodes one more block into `ready`.
    fn refill(&mut self) -> Result<(), AudioError> {
        self.ready.clear();
        self.ready_from = 0;
        self.input
            .next(&mut self.raw)
            .map_err(|error| self.with_ffmpeg_error(error))?;
        self.report.replaced_samples += replace_invalid(&mut self.raw.samples);
        if let Some(coding) = self.coded.push(&self.raw.samples) {
            let detail = format!("its samples are {coding} for a digital output and would play as noise");
            return Err(AudioError::unsupported(&self.path, detail));
        }
        self.mixed.clear();
        if let Some(downmix) = &self.raw.downmix {
            downmix.mix(&self.raw.samples, &mut self.mixed);
        }
        self.is_ended = self.mixed.is_empty();
        let rate_hz = self.input.rate_hz();
        if self.is_ended {
            self.finish_conversion()?;
        } else if rate_hz != self.converter_rate_hz {
            // Another stream begins; the remaining output of the previous one comes first.
            self.finish_conversion()?;
            self.converter = converter(&self.path, rate_hz)?;
            self.converter_rate_hz = rate_hz;
            self.file_frames = None;
        }
        self.file_frames = self.file_frames.map(|frames| frames + self.mixed.frames() as u64);
        if !self.is_ended {
            let converted = self.converter.push(&self.mixed, &mut self.ready);
            converted.map_err(|detail| self.not_converted(detail))?;
        }
        self.report.frames += self.ready.frames() as u64;
        if let Some((limit, max_frames)) = self.limit
            && self.report.frames > max_frames
        {
            return Err(AudioError::too_long(&self.path, limit));
        }
        if self.is_ended && self.report.frames == 0 {
            return Err(self.with_ffmpeg_error(AudioError::empty(&self.path)));
        }
        Ok(())
    }

    fn finish_conversion(&mut self) -> Result<(), AudioError> {
        let finished = self.converter.finish(&mut self.ready);
        finished.map_err(|detail| self.not_converted(detail))
    }

    fn not_converted(&self, detail: String) -> AudioError {
        AudioError::Resample {
            path: self.path.clone(),
            detail,
        }
    }
}

impl StereoSource for FileSource {
    fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError> {
        block.clear();
        while self.ready_from == self.ready.frames() {
            if self.is_ended {
                return Ok(());
            }
            self.refill()?;
        }
        let end = self.ready.frames().min(self.ready_from + MAX_BLOCK_FRAMES);
        block.append_range(&self.ready, self.ready_from..end);
        self.ready_from = end;
        Ok(())
    }

    fn expected_frames(&self) -> Option<u64> {
        self.info.expected_frames
    }

    fn is_length_estimated(&self) -> bool {
        self.input.is_length_estimated()
    }
}

fn converter(path: &Path, rate_hz: u32) -> Result<Converter, AudioError> {
    Converter::new(rate_hz, SAMPLE_RATE_HZ).ok_or_else(|| AudioError::SampleRate {
        path: path.to_owned(),
        rate_hz,
    })
}

fn frames_of(duration: Duration) -> u64 {
    let frames = duration.as_nanos() * u128::from(SAMPLE_RATE_HZ) / 1_000_000_000;
    u64::try_from(frames).unwrap_or(u64::MAX)
}

fn replace_invalid(samples: &mut [f32]) -> u64 {
    let mut replaced = 0;
    for sample in samples {
        if !sample.is_finite() || sample.abs() > MAX_SAMPLE {
            *sample = 0.0;
            replaced += 1;
        }
    }
    replaced
}
