//! Headers of MPEG audio and ADTS frames. Neither format has a signature: only several agreeing headers, each
//! exactly where the previous frame ends, distinguish audio from other bytes.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};

/// The longest parsed header: ADTS with its checksum has 9 bytes.
pub(super) const HEADER_BYTES: usize = 9;

/// The longest frame: 13 bits of length in ADTS; MPEG has at most 2,881.
pub(super) const MAX_FRAME_BYTES: usize = 8_191;

/// The declarations of one frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) codec: AudioCodecId,
    /// Length of the frame in bytes, header included.
    pub(super) bytes: usize,
    /// Bytes before the decoder's input: the complete header for ADTS, none for MPEG.
    pub(super) skipped_bytes: usize,
    /// Frames of audio that it decodes to.
    pub(super) frames: u16,
    pub(super) rate_hz: u32,
    /// Channels, where the header declares them.
    pub(super) channels: Option<u8>,
    /// Offset of an encoder's tag, if the frame has one: after the side information of layer III.
    pub(super) tag_offset: usize,
    /// The bits that are equal in every frame of one stream.
    kind: u32,
}

impl Header {
    /// Whether both headers belong to one stream.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        self.codec == other.codec && self.kind == other.kind
    }
}

/// Parses a header at the start of a byte slice.
pub(super) type Parse = fn(&[u8]) -> Option<Header>;

/// Whether `min_frames` agreeing frames in a row start `bytes`. Fewer suffice where the input ends with
/// `bytes`, exactly after one of them.
pub(super) fn is_run(bytes: &[u8], parse: Parse, min_frames: usize, is_end: bool) -> bool {
    let Some(first) = parse(bytes) else {
        return false;
    };
    let mut position = 0;
    for found in 0..min_frames {
        if is_end && position == bytes.len() && found > 0 {
            return true;
        }
        let rest = &bytes[position.min(bytes.len())..];
        match parse(rest) {
            Some(header) if header.agrees_with(&first) => position += header.bytes,
            // After two good frames, the rest of a short file may be a tag or an incomplete frame.
            _ => return is_end && found >= 2,
        }
    }
    true
}

/// ISO 11172-3 and 13818-3 frame headers, layers I to III; free-format streams are refused.
pub(super) fn mpeg(bytes: &[u8]) -> Option<Header> {
    let &[first, second, third, fourth, ..] = bytes else {
        return None;
    };
    if first != 0xff || second & 0xe0 != 0xe0 {
        return None;
    }
    let version = second >> 3 & 3; // 3 = MPEG 1, 2 = MPEG 2, 0 = MPEG 2.5
    let layer = second >> 1 & 3; // 3 = I, 2 = II, 1 = III
    let bitrate_index = usize::from(third >> 4);
    let rate_index = usize::from(third >> 2 & 3);
    if version == 1 || layer == 0 || bitrate_index == 0 || bitrate_index == 15 || rate_index == 3 {
        return None;
    }
    let is_version_1 = version == 3;
    let is_mono = fourth >> 6 == 3;
    let kbps = MPEG_KBPS[match (is_version_1, layer) {
        (true, 3) => 0,
        (true, 2) => 1,
        (true, _) => 2,
        (false, 3) => 3,
        (false, _) => 4,
    }][bitrate_index - 1];
    let rate = [44_100, 48_000, 32_000][rate_index] >> [2, 0, 1, 0][usize::from(version)];
    let padding = usize::from(third >> 1 & 1);
    let (codec, frames, bytes) = match (layer, is_version_1) {
        (3, _) => (CODEC_ID_MP1, 384, (12_000 * kbps / rate + padding) * 4),
        (2, _) => (CODEC_ID_MP2, 1_152, 144_000 * kbps / rate + padding),
        (_, true) => (CODEC_ID_MP3, 1_152, 144_000 * kbps / rate + padding),
        (_, false) => (CODEC_ID_MP3, 576, 72_000 * kbps / rate + padding),
    };
    let side_bytes = match (is_version_1, is_mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    Some(Header {
        codec,
        bytes,
        skipped_bytes: 0,
        frames,
        rate_hz: rate as u32,
        channels: Some(if is_mono { 1 } else { 2 }),
        tag_offset: 4 + side_bytes,
        kind: u32::from(version) << 8 | u32::from(is_mono) << 4 | rate_index as u32,
    })
}

const MPEG_KBPS: [[usize; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// ISO 13818-7 ADTS headers of one block of 1,024 frames; several blocks per header are left to ffmpeg.
pub(super) fn adts(bytes: &[u8]) -> Option<Header> {
    const RATES_HZ: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let &[first, second, third, fourth, fifth, sixth, seventh, ..] = bytes else {
        return None;
    };
    if first != 0xff || second & 0xf6 != 0xf0 || seventh & 3 != 0 {
        return None;
    }
    let rate_hz = *RATES_HZ.get(usize::from(third >> 2 & 15))?;
    let bytes = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    let skipped_bytes = if second & 1 == 0 { 9 } else { 7 };
    if bytes < skipped_bytes {
        return None;
    }
    let channels = match third << 2 & 4 | fourth >> 6 {
        0 => None,
        7 => Some(8),
        count => Some(count),
    };
    Some(Header {
        codec: CODEC_ID_AAC,
        bytes,
        skipped_bytes,
        frames: 1_024,
        rate_hz,
        channels,
        tag_offset: usize::MAX,
        kind: u32::from(second & 0x08) << 8 | u32::from(third & 0xfd) << 4 | u32::from(fourth >> 6),
    })
}
