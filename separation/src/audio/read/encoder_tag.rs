//! The tag that encoders write in the first frame of an MP3: Xing, Info or VBRI, with LAME's extension.

use super::bytes::u32_be;
use super::frames::Header;

/// What the tag declares about the frames after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EncoderTag {
    /// MPEG frames after the tag; `None` where the encoder left it open, as when it did not finish.
    pub(super) mpeg_frames: Option<u32>,
    /// Frames of audio that the encoder and the decoder add before and after the song.
    pub(super) gapless: Option<Gapless>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gapless {
    pub(super) delay: u32,
    pub(super) padding: u32,
}

/// Delay of every layer III decoder, in frames.
const DECODER_DELAY: u32 = 528 + 1;

/// The tag in a frame; a frame with a tag has no audio.
pub(super) fn read(frame: &[u8], header: &Header) -> Option<EncoderTag> {
    const CHECKSUM: u8 = 1;
    let side_start = if frame.get(1)? & CHECKSUM == 0 { 6 } else { 4 };
    // The tag follows the side information of a frame without a checksum; VBRI always comes after 32 bytes.
    let xing = frame.get(header.tag_offset..)?;
    if (xing.starts_with(b"Xing") || xing.starts_with(b"Info"))
        && is_zero(frame, side_start, header.tag_offset)
    {
        return read_xing(&xing[4..]);
    }
    let vbri = frame.get(36..)?;
    if vbri.starts_with(b"VBRI\0\x01") && is_zero(frame, side_start, 36) {
        return Some(EncoderTag {
            mpeg_frames: u32_be(vbri, 14).filter(|frames| *frames > 0),
            gapless: None,
        });
    }
    None
}

fn is_zero(frame: &[u8], from: usize, to: usize) -> bool {
    frame
        .get(from..to)
        .is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

fn read_xing(tag: &[u8]) -> Option<EncoderTag> {
    /// Flags and sizes in bytes of the fields before LAME's extension: frames, bytes, table of contents,
    /// quality.
    const FIELDS: [(u32, usize); 4] = [(1, 4), (2, 4), (4, 100), (8, 4)];
    let flags = u32_be(tag, 0)?;
    let mpeg_frames = if flags & 1 != 0 { u32_be(tag, 4) } else { None };
    let fields: usize = FIELDS
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, bytes)| bytes)
        .sum();
    Some(EncoderTag {
        mpeg_frames: mpeg_frames.filter(|frames| *frames > 0),
        gapless: tag.get(4 + fields..).and_then(read_lame),
    })
}

fn read_lame(extension: &[u8]) -> Option<Gapless> {
    const TRIM_OFFSET: usize = 21;
    let &[high, middle, low] = extension.get(TRIM_OFFSET..TRIM_OFFSET + 3)? else {
        return None;
    };
    let is_known = [b"LAME".as_slice(), b"Lavf", b"Lavc"]
        .iter()
        .any(|encoder| extension.starts_with(encoder));
    if !is_known {
        return Some(Gapless::default());
    }
    let delay = u32::from(high) << 4 | u32::from(middle) >> 4;
    let padding = u32::from(middle & 15) << 8 | u32::from(low);
    Some(Gapless {
        delay: delay + DECODER_DELAY,
        padding: padding.saturating_sub(DECODER_DELAY),
    })
}
