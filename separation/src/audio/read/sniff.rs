//! Recognizes a file's format by its first bytes, never by its name.
//!
//! MPEG and ADTS streams have no signature, only frame headers that random bytes imitate, so several
//! consistent headers in a row are required.

use std::io::{self, Read, Seek};

use super::bytes::read_at;
use super::frames::{self, Parse};
use super::signatures::{self, RecognizedFormat};
use super::tags;

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

/// A recognized container and the byte offset of its start (after tags and other bytes before the audio).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sniffed {
    pub(super) container: Container,
    pub(super) offset: u64,
}

/// Why a file has none of our containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unrecognized {
    /// An unknown format; it may still be audio.
    #[error("no known audio format")]
    Unknown,
    /// A known format that is never audio.
    #[error("it is {0}")]
    Foreign(&'static str),
    /// Audio that ffmpeg decodes and we do not.
    #[error("it is {0}")]
    ForFfmpeg(&'static str),
    /// More zero bytes than any file may begin with.
    #[error("its first {MAX_ZERO_BYTES} bytes are zero, as in a download that was not finished")]
    Zeros,
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file ends after or within its tags.
    #[error("nothing follows its tags")]
    OnlyTags,
}

/// Bytes searched for signatures: the second frame of AC-3 begins within 3,840 bytes.
const HEAD_BYTES: u64 = 4_096;

/// Bytes searched that are neither a tag nor known: a megabyte, as other players do.
const WINDOW_BYTES: usize = 1_048_576;

/// How far into the window a first MPEG or ADTS frame needs only `NEAR_FRAMES` after it: two of the longest
/// MPEG frames, as in a stream that starts in the middle of a frame, and some margin.
const NEAR_BYTES: usize = 4_096;

/// Agreeing frames required in a row, unless the file ends exactly after fewer.
const NEAR_FRAMES: usize = 4;

/// The same farther in, where more bytes can imitate frames by chance.
const FAR_FRAMES: usize = 16;

/// Tags skipped in a row; taggers write at most a few.
const MAX_TAGS: usize = 8;

/// Zero bytes skipped before the first frame: 64 KiB, the padding that taggers leave.
const MAX_ZERO_BYTES: u64 = 65_536;

/// Recognizes the content, or reports why it is not recognized.
pub(super) fn sniff(input: &mut (impl Read + Seek)) -> io::Result<Result<Sniffed, Unrecognized>> {
    let offset = offset_after_tags(input)?;
    let window = read_at(input, offset, HEAD_BYTES)?;
    if window.is_empty() {
        return Ok(Err(if offset == 0 {
            Unrecognized::Empty
        } else {
            Unrecognized::OnlyTags
        }));
    }
    // After a tag that declares too small a size, the rest of its cover image must not be recognized as an
    // image.
    let is_at_start = offset == 0;
    match signatures::recognize(&window) {
        Some(RecognizedFormat::Foreign(name)) if is_at_start => return Ok(Err(Unrecognized::Foreign(name))),
        Some(RecognizedFormat::ForFfmpeg(name)) => return Ok(Err(Unrecognized::ForFfmpeg(name))),
        Some(RecognizedFormat::Foreign(_)) | None => {}
    }
    if let Some(container) = by_signature(&window) {
        return Ok(Ok(Sniffed { container, offset }));
    }
    if is_at_start && let Some(text) = signatures::text(&window) {
        return Ok(Err(Unrecognized::Foreign(text)));
    }
    let zeros = leading_zeros(input, offset)?;
    let offset = offset + zeros;
    let window = read_at(input, offset, WINDOW_BYTES as u64)?;
    Ok(match first_frames(&window) {
        Some((container, start)) => Ok(Sniffed {
            container,
            offset: offset + start as u64,
        }),
        None if zeros == MAX_ZERO_BYTES => Err(Unrecognized::Zeros),
        None => Err(Unrecognized::Unknown),
    })
}

/// The first place where frames begin. Other containers have such frames too, with other bytes between them,
/// and are accepted only if frames are at the beginning.
fn first_frames(window: &[u8]) -> Option<(Container, usize)> {
    // A file that ends inside the window may have fewer frames than are otherwise required.
    let is_end = window.len() < WINDOW_BYTES;
    let search_bytes = if is_container_of_mpeg_frames(window) {
        NEAR_BYTES
    } else {
        window.len()
    };
    (0..window.len().min(search_bytes))
        .filter(|start| window[*start] == 0xff)
        .find_map(|start| {
            let min_frames = if start < NEAR_BYTES {
                NEAR_FRAMES
            } else {
                FAR_FRAMES
            };
            let rest = &window[start..];
            [
                (Container::Mpeg, frames::mpeg as Parse),
                (Container::Adts, frames::adts),
            ]
            .into_iter()
            .find(|(_, parse)| frames::is_run(rest, *parse, min_frames, is_end))
            .map(|(container, _)| (container, start))
        })
}

/// Whether the file is a container without a signature that only ffmpeg reads and in which MPEG audio is
/// common.
fn is_container_of_mpeg_frames(head: &[u8]) -> bool {
    const SIGNATURES: [&[u8]; 5] = [b"RIFF", b"FORM", b"\0\0\x01\xb3", b"FWS", b"nut/"];
    SIGNATURES.iter().any(|magic| head.starts_with(magic))
}

/// Where the tags at the start of a file end; beyond the file if a tag claims so.
pub(super) fn offset_after_tags(input: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut offset = 0;
    for _ in 0..MAX_TAGS {
        let head = read_at(input, offset, tags::HEAD_BYTES)?;
        // ID3v1 belongs at the end.
        let Some(length) = tags::length_at(&head).filter(|_| !head.starts_with(b"TAG")) else {
            break;
        };
        // With a size beyond the end of the file, the search finds nothing there.
        offset += length;
    }
    Ok(offset)
}

fn leading_zeros(input: &mut (impl Read + Seek), offset: u64) -> io::Result<u64> {
    let window = read_at(input, offset, MAX_ZERO_BYTES)?;
    Ok(window.iter().take_while(|byte| **byte == 0).count() as u64)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn check(bytes: Vec<u8>, expected: Result<Container, Unrecognized>) {
        let found = sniff(&mut Cursor::new(bytes)).expect("a cursor does not fail");
        assert_eq!(found.map(|sniffed| sniffed.container), expected);
    }

    #[test]
    fn text_archives_and_empty_files_are_named_by_their_kind() {
        check(Vec::new(), Err(Unrecognized::Empty));
        check(
            b"[playlist]\nsong.mp3\n".to_vec(),
            Err(Unrecognized::Foreign("a playlist, not the songs that it names")),
        );
        check(
            b"PK\x03\x04rest".to_vec(),
            Err(Unrecognized::Foreign("a zip archive")),
        );
        check(vec![0; 100_000], Err(Unrecognized::Zeros));
        check(vec![0; 1_000], Err(Unrecognized::Unknown));
    }

    #[test]
    fn one_mpeg_header_in_noise_is_not_an_mp3() {
        let mut bytes = vec![0xfe_u8; 20_000];
        bytes[100..104].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
        check(bytes, Err(Unrecognized::Unknown));
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
            Err(Unrecognized::OnlyTags),
        );
    }

    #[test]
    fn the_reason_that_a_file_is_not_audio_reads_as_a_sentence() {
        assert_eq!(
            Unrecognized::Foreign("a PNG image").to_string(),
            "it is a PNG image"
        );
        assert_eq!(Unrecognized::OnlyTags.to_string(), "nothing follows its tags");
    }
}
