//! Byte order of linear samples in QuickTime and MP4 files; symphonia assumes little-endian.
//!
//! QuickTime File Format: `in24`, `in32`, `fl32` and `fl64` are big-endian unless an `enda` box holds 1; `twos` is
//! big-endian and `sowt` little-endian; `lpcm` has flags.

use std::io::{Read, Seek, SeekFrom};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64LE, CODEC_ID_PCM_S16BE,
    CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE, CODEC_ID_PCM_S32LE,
};
use symphonia::core::errors::{Error, Result};
use symphonia::core::formats::Track;

use super::bytes::{read_at, u32_be};
use super::edits::{BoxExtent, BoxWalker, after_times};
use crate::audio::error::UNCLEAR_WIDTH;

/// Sound tracks inspected; more than a film has.
const MAX_TRACKS: usize = 64;

/// The codecs of the tracks with linear samples, by track number. Tracks that cannot be read are left to the
/// reader. A track whose packets are larger than its samples is an error, because the alignment of the
/// samples is unknown.
pub(super) fn codecs(input: &mut (impl Read + Seek)) -> Result<Vec<(u32, AudioCodecId)>> {
    let mut found = Vec::new();
    let Ok(end) = input.seek(SeekFrom::End(0)) else {
        return Ok(found);
    };
    let mut walk = BoxWalker { input, boxes: 0 };
    let Some(movie) = walk.find(0, end, b"moov") else {
        return Ok(found);
    };
    let mut from = movie.0;
    for _ in 0..MAX_TRACKS {
        let Some(track) = walk.find(from, movie.1, b"trak") else {
            break;
        };
        from = track.1;
        if let Some(linear) = linear_track(&mut walk, track) {
            found.push(linear?);
        }
    }
    Ok(found)
}

/// Sets the track's codec from `codecs`, if the track has linear samples.
pub(super) fn correct(track: &mut Track, codecs: &[(u32, AudioCodecId)]) {
    let codec = codecs.iter().find(|(id, _)| *id == track.id);
    let params = track.codec_params.as_mut().and_then(CodecParameters::audio_mut);
    if let (Some((_, codec)), Some(params)) = (codec, params) {
        params.codec = *codec;
    }
}

fn linear_track(
    walk: &mut BoxWalker<'_, impl Read + Seek>,
    track: BoxExtent,
) -> Option<Result<(u32, AudioCodecId)>> {
    let header = walk.find(track.0, track.1, b"tkhd")?;
    let id = after_times(&walk.prefix(header)?)?;
    let mut description = track;
    for kind in [b"mdia", b"minf", b"stbl", b"stsd"] {
        description = walk.find(description.0, description.1, kind)?;
    }
    // Version, flags and the number of entries; then the first entry, which is itself a box.
    let entry = description.0 + 8;
    let content = read_at(walk.input, entry, 72).ok()?;
    let kind = content.get(4..8)?;
    let version = u16::from_be_bytes(*content.get(16..18)?.first_chunk()?);
    let end = entry
        .checked_add(u64::from(u32_be(&content, 0)?))?
        .min(description.1);
    let boxes_from = entry + [36, 52, 72].get(usize::from(version))?;
    if kind == b"lpcm" && version == 2 {
        return is_unclear(&content).then_some(Err(Error::Unsupported(UNCLEAR_WIDTH)));
    }
    let is_little = byte_order(walk, (boxes_from, end)) == Some(1);
    let codec = codec(kind, sample_bits(&content, version)?, is_little)?;
    Some(Ok((id, codec)))
}

/// Version 2 gives bits per sample, bytes per packet and frames per packet.
fn is_unclear(content: &[u8]) -> bool {
    let fields = [48, 56, 64, 68].map(|offset| u32_be(content, offset).map(u64::from));
    let [Some(channels), Some(bits), Some(packet), Some(frames)] = fields else {
        return false;
    };
    packet > 0 && packet != bits.div_ceil(8) * channels * frames.max(1)
}

/// Version 1 also gives bytes per sample, which overrides the 16-bit size field before it.
fn sample_bits(content: &[u8], version: u16) -> Option<u32> {
    match version {
        1 => Some(8 * u32_be(content, 40)?),
        _ => Some(u32::from(u16::from_be_bytes(
            *content.get(26..28)?.first_chunk()?,
        ))),
    }
}

/// The value of the `enda` box, with or without an enclosing `wave` box.
fn byte_order(walk: &mut BoxWalker<'_, impl Read + Seek>, boxes: BoxExtent) -> Option<u16> {
    let inside = walk.find(boxes.0, boxes.1, b"wave");
    let inside = inside.and_then(|wave| walk.find(wave.0, wave.1, b"enda"));
    let order = inside.or_else(|| walk.find(boxes.0, boxes.1, b"enda"))?;
    Some(u16::from_be_bytes(*walk.prefix(order)?.first_chunk()?))
}

fn codec(kind: &[u8], bits: u32, is_little: bool) -> Option<AudioCodecId> {
    Some(match (kind, bits, is_little) {
        (b"twos", 16, _) => CODEC_ID_PCM_S16BE,
        (b"sowt", 16, _) => CODEC_ID_PCM_S16LE,
        (b"in24", _, false) => CODEC_ID_PCM_S24BE,
        (b"in24", _, true) => CODEC_ID_PCM_S24LE,
        (b"in32", _, false) => CODEC_ID_PCM_S32BE,
        (b"in32", _, true) => CODEC_ID_PCM_S32LE,
        (b"fl32", _, false) => CODEC_ID_PCM_F32BE,
        (b"fl32", _, true) => CODEC_ID_PCM_F32LE,
        (b"fl64", _, false) => CODEC_ID_PCM_F64BE,
        (b"fl64", _, true) => CODEC_ID_PCM_F64LE,
        _ => return None,
    })
}
