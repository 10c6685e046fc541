//! Creates symphonia's readers and decoders, and maps their errors to ours.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_OPUS,
    CODEC_ID_VORBIS,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadBytes};
use symphonia::default::formats::{AiffReader, CafReader, IsoMp4Reader, MkvReader, OggReader, WavReader};

use super::bytes::big_endian;
use super::caf;
use super::depth::alac_config;
use super::flac_streams::FlacStreams;
use super::frame_stream::FrameStream;
use super::frames;
use super::ogg::{self, OggStreams};
use super::section::Section;
use super::sniff::{Container, Sniffed};
use crate::audio::AudioError;
use crate::audio::error::UNCLEAR_WIDTH;

/// Opus always decodes at this rate, whatever its source had.
pub(super) const OPUS_RATE_HZ: u32 = 48_000;

/// FLAC stores its block size in 16 bits.
const MAX_FLAC_FRAMES: u64 = 65_535;

/// Frame size of Apple's encoder; the format sets no limit.
const MAX_ALAC_FRAMES: u64 = 16_384;

/// What symphonia reports as damage although the file is valid: its decoders do not support it.
const UNSUPPORTED_DETAILS: [&str; 4] = [
    "isomp4: invalid pcm sample size",
    "isomp4: invalid pcm bytes per sample",
    "isomp4: invalid number of channels",
    "pcm: unexpected bits per sample",
];

/// Vorbis channels that symphonia decodes correctly; with more it undoes channel coupling in the wrong order.
const MAX_VORBIS_CHANNELS: u8 = 2;

/// Most channels a decoder is created for; 7.1.4 has 12.
const MAX_CHANNELS: usize = 64;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
    codecs
});

/// Creates a reader of the bytes up to `end`.
pub(super) fn make_reader(
    mut input: Box<dyn MediaSource>,
    end: u64,
    sniffed: Sniffed,
) -> Result<Box<dyn FormatReader>, Error> {
    match sniffed.container {
        Container::Caf => input = caf::with_length(input, sniffed.offset)?,
        Container::Ogg => ogg::check_codecs(&mut input, sniffed.offset)?,
        _ => {}
    }
    let mut section = Section::new(input, end)?;
    if sniffed.container == Container::Matroska {
        section = section.unseekable_if_truncated()?;
    }
    let mut stream = MediaSourceStream::new(Box::new(section), Default::default());
    io::Seek::seek(&mut stream, io::SeekFrom::Start(sniffed.offset))?;
    let options = FormatOptions::default();
    Ok(match sniffed.container {
        Container::Wav => Box::new(WavReader::try_new(stream, options)?),
        Container::Flac => Box::new(FlacStreams::open(Box::new(stream), sniffed.offset)?),
        Container::Ogg => Box::new(OggStreams::new(OggReader::try_new(stream, options)?)),
        Container::Aiff => Box::new(AiffReader::try_new(stream, options)?),
        Container::Caf => Box::new(CafReader::try_new(stream, options)?),
        Container::Mp4 => {
            // That reader expects to start after the size of the first box, and seeks back.
            stream.read_quad_bytes()?;
            Box::new(IsoMp4Reader::try_new(stream, options)?)
        }
        Container::Matroska => Box::new(MkvReader::try_new(stream, options)?),
        Container::Adts => Box::new(FrameStream::open(stream, sniffed.offset, frames::adts)?),
        Container::Mpeg => Box::new(FrameStream::open(stream, sniffed.offset, frames::mpeg)?),
    })
}

pub(super) fn make_decoder(track: &Track) -> Result<(Box<dyn AudioDecoder>, AudioCodecParameters), Error> {
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params = params
        .ok_or(Error::Unsupported("a codec without parameters"))?
        .clone();
    if params
        .channels
        .as_ref()
        .is_some_and(|channels| channels.count() > MAX_CHANNELS)
    {
        return Err(Error::Unsupported("more than 64 channels"));
    }
    if params.codec == CODEC_ID_VORBIS && vorbis_channels(&params) > MAX_VORBIS_CHANNELS {
        return Err(Error::Unsupported("it is Vorbis with more than two channels"));
    }
    let mut adapted = params.clone();
    if params.codec == CODEC_ID_OPUS {
        // The adapter would drop the initial frames from the first packet only, which may be shorter.
        adapted.extra_data = None;
        adapted.sample_rate = Some(OPUS_RATE_HZ);
    }
    let decoder = CODECS.make_audio_decoder(&adapted, &AudioDecoderOptions::default())?;
    Ok((decoder, params))
}

/// The most frames that one packet can hold, whatever its container declares.
pub(super) fn max_packet_frames(params: &AudioCodecParameters, bytes: usize) -> u64 {
    let number = |header: Option<&[u8]>, offset: usize, bytes: usize| {
        header?.get(offset..offset + bytes).map(big_endian)
    };
    match params.codec {
        CODEC_ID_MP1 => 384,
        CODEC_ID_MP2 | CODEC_ID_MP3 => 1_152,
        CODEC_ID_AAC => 1_024,
        // 120 ms.
        CODEC_ID_OPUS => 5_760,
        // Half of the longest block.
        CODEC_ID_VORBIS => 4_096,
        // The largest block size of STREAMINFO.
        CODEC_ID_FLAC => number(params.extra_data.as_deref(), 2, 2)
            .unwrap_or(MAX_FLAC_FRAMES)
            .min(MAX_FLAC_FRAMES),
        CODEC_ID_ALAC => number(alac_config(params), 0, 4)
            .unwrap_or(0)
            .min(MAX_ALAC_FRAMES),
        // The densest of all other codecs has four bits per sample.
        _ => 2 * bytes as u64,
    }
}

/// Vorbis I, 4.2.2: one byte after the type, name and version of the identification header.
fn vorbis_channels(params: &AudioCodecParameters) -> u8 {
    let header = params.extra_data.as_deref().unwrap_or_default();
    header.get(11).copied().unwrap_or(0)
}

/// RFC 7845: two bytes at offset 16 of the identification header, in 1/256 dB, converted to a factor.
pub(super) fn opus_gain(params: &AudioCodecParameters) -> f32 {
    let header = params.extra_data.as_deref().unwrap_or_default();
    match (params.codec, header.get(16..18)) {
        (CODEC_ID_OPUS, Some(&[low, high])) => {
            let decibels = f32::from(i16::from_le_bytes([low, high])) / 256.0;
            10.0_f32.powf(decibels / 20.0)
        }
        _ => 1.0,
    }
}

/// RFC 7845: two bytes at offset 10 of the identification header, in frames at 48 kHz.
pub(super) fn opus_pre_skip(params: &AudioCodecParameters) -> u64 {
    match params.extra_data.as_deref().and_then(|head| head.get(10..12)) {
        Some(&[low, high]) => u64::from(u16::from_le_bytes([low, high])),
        _ => 0,
    }
}

pub(super) fn format_name(container: Container, codec: AudioCodecId) -> &'static str {
    match (container, codec) {
        (Container::Wav, _) => "wav",
        (Container::Aiff, _) => "aiff",
        (_, CODEC_ID_FLAC) => "flac",
        (_, CODEC_ID_VORBIS) => "ogg vorbis",
        (_, CODEC_ID_OPUS) => "opus",
        (_, CODEC_ID_AAC) => "aac",
        (_, CODEC_ID_ALAC) => "alac",
        (_, CODEC_ID_MP3) => "mp3",
        (_, CODEC_ID_MP2) => "mp2",
        (_, CODEC_ID_MP1) => "mp1",
        (Container::Caf, _) => "caf",
        (Container::Mp4, _) => "mp4",
        (Container::Matroska, _) => "matroska",
        _ => "other",
    }
}

pub(super) fn refusal(path: &Path, error: Error) -> AudioError {
    match error {
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            AudioError::corrupt(path, "it ends before its samples")
        }
        Error::IoError(source) => unreadable(path, source),
        Error::Unsupported(UNCLEAR_WIDTH) => AudioError::contradiction(path, UNCLEAR_WIDTH),
        Error::Unsupported(detail) => AudioError::unsupported(path, detail),
        Error::DecodeError(detail) if UNSUPPORTED_DETAILS.contains(&detail) => {
            AudioError::unsupported(path, detail)
        }
        Error::DecodeError(detail) | Error::LimitError(detail) => AudioError::corrupt(path, detail),
        other => AudioError::corrupt(path, other.to_string()),
    }
}

/// The error for an input/output failure. `EINVAL` (an impossible position) comes from a position in the
/// file's content.
pub(super) fn unreadable(path: &Path, source: io::Error) -> AudioError {
    match source.kind() {
        io::ErrorKind::InvalidInput => AudioError::corrupt(path, "its structure points outside the file"),
        _ => AudioError::read(path)(source),
    }
}
