//! Tells what a file is from its first bytes; names are never asked.
//!
//! MPEG and ADTS streams have no signature, only frame headers that random bytes imitate, so several consistent
//! headers in a row are demanded before a file counts as one.

use std::io::{self, Read, Seek, SeekFrom};

/// What the first bytes say that a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Wav,
    Flac,
    Ogg,
    Aiff,
    Caf,
    Mp4,
    Matroska,
    Adts,
    Mpeg,
}

/// A recognised container and where it begins (after an ID3v2 tag, where there is one), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sniffed {
    pub(super) container: Container,
    pub(super) offset: u64,
}

/// Why a file is none of our containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unrecognised {
    /// Nothing that we know; it may still be audio.
    #[error("no known audio format")]
    Unknown,
    /// Something that is known and never audio.
    #[error("it is {0}")]
    Foreign(&'static str),
    /// There are no bytes in it.
    #[error("the file is empty")]
    Empty,
    /// It ends with its tags, or before their end.
    #[error("nothing follows its tags")]
    OnlyTags,
}

/// Bytes looked at behind the tags: two of the longest MPEG frames (2 x 1,441) of foreign bytes, as at the start of
/// a stream cut in the middle of a frame, and then four consistent frames of up to 1,441 bytes (ADTS: 8,191), within
/// 4,096 + 4 x 8,191 = 36,860 bytes; rounded up.
const WINDOW_BYTES: usize = 40_960;

/// How far into the window a first MPEG or ADTS frame may begin.
const MAX_LEADING_BYTES: usize = 4_096;

/// Frames in a row that must agree, unless the file ends exactly behind fewer.
const CONSISTENT_FRAMES: usize = 4;

/// ID3v2 tags skipped one after the other; taggers leave at most a few.
const MAX_ID3_TAGS: usize = 8;

/// Zero bytes skipped in front of the first frame: 64 KiB, what taggers leave as padding.
const MAX_ZERO_BYTES: u64 = 65_536;

/// Recognises the content, or says what is there instead.
pub(super) fn sniff(input: &mut (impl Read + Seek)) -> io::Result<Result<Sniffed, Unrecognised>> {
    let offset = behind_id3_tags(input)?;
    let window = window_at(input, offset)?;
    if window.is_empty() {
        return Ok(Err(if offset == 0 {
            Unrecognised::Empty
        } else {
            Unrecognised::OnlyTags
        }));
    }
    if let Some(container) = by_signature(&window) {
        return Ok(Ok(Sniffed { container, offset }));
    }
    if let Some(known) = foreign(&window) {
        return Ok(Err(Unrecognised::Foreign(known)));
    }
    let zeros = leading_zeros(input, offset)?;
    let offset = offset + zeros;
    let window = window_at(input, offset)?;
    for start in 0..window.len().min(MAX_LEADING_BYTES) {
        let rest = &window[start..];
        // A file that ends inside the window may hold fewer frames than are otherwise demanded.
        let is_whole = window.len() < WINDOW_BYTES;
        for (container, header) in [
            (Container::Mpeg, mpeg_header as FrameHeader),
            (Container::Adts, adts_header),
        ] {
            if agrees(rest, header, is_whole) {
                return Ok(Ok(Sniffed {
                    container,
                    offset: offset + start as u64,
                }));
            }
        }
    }
    Ok(Err(Unrecognised::Unknown))
}

fn window_at(input: &mut (impl Read + Seek), offset: u64) -> io::Result<Vec<u8>> {
    input.seek(SeekFrom::Start(offset))?;
    let mut window = Vec::with_capacity(WINDOW_BYTES);
    input
        .by_ref()
        .take(WINDOW_BYTES as u64)
        .read_to_end(&mut window)?;
    Ok(window)
}

fn behind_id3_tags(input: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut offset = 0;
    for _ in 0..MAX_ID3_TAGS {
        input.seek(SeekFrom::Start(offset))?;
        let mut head = Vec::with_capacity(10);
        input.by_ref().take(10).read_to_end(&mut head)?;
        let [b'I', b'D', b'3', _, _, flags, a, b, c, d] = head[..] else {
            break;
        };
        // Four bytes of seven bits: at most 256 MiB, and a size beyond the end of the file just finds nothing there.
        let size = [a, b, c, d]
            .iter()
            .fold(0_u64, |size, byte| size << 7 | u64::from(byte & 0x7f));
        let footer = if flags & 0x10 != 0 { 10 } else { 0 };
        offset += 10 + size + footer;
    }
    Ok(offset)
}

fn leading_zeros(input: &mut (impl Read + Seek), offset: u64) -> io::Result<u64> {
    input.seek(SeekFrom::Start(offset))?;
    let mut buffer = Vec::new();
    input.by_ref().take(MAX_ZERO_BYTES).read_to_end(&mut buffer)?;
    Ok(buffer.iter().take_while(|byte| **byte == 0).count() as u64)
}

fn by_signature(head: &[u8]) -> Option<Container> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    let is_riff = at(0, b"RIFF") || at(0, b"RF64") || at(0, b"BW64");
    if is_riff && at(8, b"WAVE") {
        Some(Container::Wav)
    } else if at(0, b"fLaC") {
        Some(Container::Flac)
    } else if at(0, b"OggS") {
        Some(Container::Ogg)
    } else if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        Some(Container::Aiff)
    } else if at(0, b"caff") {
        Some(Container::Caf)
    } else if at(4, b"ftyp") {
        Some(Container::Mp4)
    } else if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        Some(Container::Matroska)
    } else {
        None
    }
}

/// Common files that are never audio but may hold some inside, which must not be found by chance.
fn foreign(head: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 9] = [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"%PDF", "a PDF document"),
        (b"\x7fELF", "a program"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"7z\xbc\xaf", "a 7z archive"),
        (b"Rar!", "a RAR archive"),
    ];
    let known = KNOWN
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, name)| *name);
    known.or_else(|| is_text(head).then_some("text"))
}

fn is_text(head: &[u8]) -> bool {
    let is_texty = |byte: &u8| (0x20..0x7f).contains(byte) || matches!(byte, b'\t' | b'\n' | b'\r');
    head.iter().take(512).all(is_texty)
}

/// Length of the frame in bytes and what must stay the same from frame to frame.
type FrameHeader = fn(&[u8]) -> Option<(usize, u32)>;

fn agrees(bytes: &[u8], header: FrameHeader, is_whole: bool) -> bool {
    let Some((_, kind)) = header(bytes) else {
        return false;
    };
    let mut position = 0;
    for frame in 0..CONSISTENT_FRAMES {
        if is_whole && position == bytes.len() && frame > 0 {
            return true;
        }
        let rest = &bytes[position.min(bytes.len())..];
        match header(rest) {
            Some((length, same)) if same == kind => position += length,
            // Behind two good frames the rest of a short file may be a tag or a frame cut off.
            _ => return is_whole && frame >= 2,
        }
    }
    true
}

/// ISO 11172-3 and 13818-3 frame headers, layers I to III; free-format streams are not taken.
fn mpeg_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let &[first, second, third, ..] = bytes else {
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
    let kbps = MPEG_KBPS[match (is_version_1, layer) {
        (true, 3) => 0,
        (true, 2) => 1,
        (true, _) => 2,
        (false, 3) => 3,
        (false, _) => 4,
    }][bitrate_index - 1];
    let rate = [44_100, 48_000, 32_000][rate_index] >> [2, 0, 1, 0][usize::from(version)];
    let padding = usize::from(third >> 1 & 1);
    let length = match (layer, is_version_1) {
        (3, _) => (12_000 * kbps / rate + padding) * 4,
        (1, false) => 72_000 * kbps / rate + padding,
        _ => 144_000 * kbps / rate + padding,
    };
    let same = u32::from(version) << 8 | u32::from(layer) << 4 | rate_index as u32;
    Some((length, same))
}

const MPEG_KBPS: [[usize; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// ISO 13818-7 ADTS headers.
fn adts_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let &[first, second, third, fourth, fifth, sixth, ..] = bytes else {
        return None;
    };
    if first != 0xff || second & 0xf6 != 0xf0 {
        return None;
    }
    let rate_index = third >> 2 & 15;
    let length = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    if rate_index > 12 || length < 7 {
        return None;
    }
    let same = u32::from(second & 0x08) << 8 | u32::from(third & 0xfc) << 4 | u32::from(fourth >> 6);
    Some((length, same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn check(bytes: Vec<u8>, expected: Result<Container, Unrecognised>) {
        let found = sniff(&mut Cursor::new(bytes)).expect("a cursor does not fail");
        assert_eq!(found.map(|sniffed| sniffed.container), expected);
    }

    #[test]
    fn text_archives_and_nothing_are_named_for_what_they_are() {
        check(Vec::new(), Err(Unrecognised::Empty));
        check(
            b"[playlist]\nsong.mp3\n".to_vec(),
            Err(Unrecognised::Foreign("text")),
        );
        check(
            b"PK\x03\x04rest".to_vec(),
            Err(Unrecognised::Foreign("a zip archive")),
        );
        check(vec![0; 100_000], Err(Unrecognised::Unknown));
    }

    #[test]
    fn one_mpeg_header_in_noise_is_not_an_mp3() {
        let mut bytes = vec![0xfe_u8; 20_000];
        bytes[100..104].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
        check(bytes, Err(Unrecognised::Unknown));
    }

    #[test]
    fn four_mpeg_frames_in_a_row_are_an_mp3() {
        let mut bytes = vec![0x01_u8; 417 * 5];
        for frame in 0..5 {
            bytes[frame * 417..frame * 417 + 4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
        }
        check(bytes, Ok(Container::Mpeg));
    }

    #[test]
    fn a_tag_that_claims_more_than_the_file_has_ends_the_search() {
        check(
            b"ID3\x04\x00\x00\x7f\x7f\x7f\x7fxxxx".to_vec(),
            Err(Unrecognised::OnlyTags),
        );
    }

    #[test]
    fn what_is_recognised_as_no_audio_reads_as_a_sentence() {
        assert_eq!(
            Unrecognised::Foreign("a PNG image").to_string(),
            "it is a PNG image"
        );
        assert_eq!(Unrecognised::OnlyTags.to_string(), "nothing follows its tags");
    }
}
