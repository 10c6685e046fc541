//! Tells what a file is from its first bytes; names are never asked.
//!
//! MPEG and ADTS streams have no signature, only frame headers that random bytes imitate, so several consistent
//! headers in a row are demanded before a file counts as one.

use std::io::{self, Read, Seek};

use super::bytes::read_at;
use super::frames::{self, Parse};
use super::signatures::{self, Known};
use super::tags;

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

/// A recognised container and where it begins (after tags and bytes that are no audio), in bytes.
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
    /// Audio that ffmpeg decodes and we do not.
    #[error("it is {0}")]
    ForFfmpeg(&'static str),
    /// As many zeros as any file may begin with, and no end of them.
    #[error("its first {MAX_ZERO_BYTES} bytes are zero, as in a download that was not finished")]
    Zeros,
    /// There are no bytes in it.
    #[error("the file is empty")]
    Empty,
    /// It ends with its tags, or before their end.
    #[error("nothing follows its tags")]
    OnlyTags,
}

/// Bytes in which signatures are: the second frame of AC-3 begins within 3,840 bytes.
const HEAD_BYTES: u64 = 4_096;

/// Bytes looked at in all that is neither a tag nor known: a megabyte, as other players do.
const WINDOW_BYTES: usize = 1_048_576;

/// How far into the window a first MPEG or ADTS frame needs no more than `NEAR_FRAMES` behind it: two of the longest
/// MPEG frames, as at the start of a stream that was cut in the middle of a frame, and some.
const NEAR_BYTES: usize = 4_096;

/// Frames in a row that must agree, unless the file ends exactly behind fewer.
const NEAR_FRAMES: usize = 4;

/// The same farther in, where more bytes had a chance to imitate frames.
const FAR_FRAMES: usize = 16;

/// Tags skipped one after the other; taggers leave at most a few.
const MAX_TAGS: usize = 8;

/// Zero bytes skipped in front of the first frame: 64 KiB, what taggers leave as padding.
const MAX_ZERO_BYTES: u64 = 65_536;

/// Recognises the content, or says what is there instead.
pub(super) fn sniff(input: &mut (impl Read + Seek)) -> io::Result<Result<Sniffed, Unrecognised>> {
    let offset = behind_tags(input)?;
    let window = read_at(input, offset, HEAD_BYTES)?;
    if window.is_empty() {
        return Ok(Err(if offset == 0 {
            Unrecognised::Empty
        } else {
            Unrecognised::OnlyTags
        }));
    }
    // Behind a tag that states too small a size, the rest of its cover is no image.
    let is_at_start = offset == 0;
    match signatures::recognize(&window) {
        Some(Known::Foreign(name)) if is_at_start => return Ok(Err(Unrecognised::Foreign(name))),
        Some(Known::ForFfmpeg(name)) => return Ok(Err(Unrecognised::ForFfmpeg(name))),
        Some(Known::Foreign(_)) | None => {}
    }
    if let Some(container) = by_signature(&window) {
        return Ok(Ok(Sniffed { container, offset }));
    }
    if is_at_start && let Some(text) = signatures::text(&window) {
        return Ok(Err(Unrecognised::Foreign(text)));
    }
    let zeros = leading_zeros(input, offset)?;
    let offset = offset + zeros;
    let window = read_at(input, offset, WINDOW_BYTES as u64)?;
    Ok(match first_frames(&window) {
        Some((container, start)) => Ok(Sniffed {
            container,
            offset: offset + start as u64,
        }),
        None if zeros == MAX_ZERO_BYTES => Err(Unrecognised::Zeros),
        None => Err(Unrecognised::Unknown),
    })
}

/// The first place where frames begin. Containers of others hold such frames, too, with something between them: there
/// only the beginning counts.
fn first_frames(window: &[u8]) -> Option<(Container, usize)> {
    // A file that ends inside the window may hold fewer frames than are otherwise demanded.
    let is_end = window.len() < WINDOW_BYTES;
    let most = if holds_frames_of_its_own(window) {
        NEAR_BYTES
    } else {
        window.len()
    };
    (0..window.len().min(most))
        .filter(|start| window[*start] == 0xff)
        .find_map(|start| {
            let demanded = if start < NEAR_BYTES {
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
            .find(|(_, parse)| frames::is_run(rest, *parse, demanded, is_end))
            .map(|(container, _)| (container, start))
        })
}

/// Whether the file is a container that only ffmpeg reads, that has no signature of its own, and in which MPEG audio is
/// common.
fn holds_frames_of_its_own(head: &[u8]) -> bool {
    const KNOWN: [&[u8]; 5] = [b"RIFF", b"FORM", b"\0\0\x01\xb3", b"FWS", b"nut/"];
    KNOWN.iter().any(|magic| head.starts_with(magic))
}

fn behind_tags(input: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut offset = 0;
    for _ in 0..MAX_TAGS {
        let head = read_at(input, offset, tags::HEAD_BYTES)?;
        // ID3v1 has its place at the end.
        let Some(length) = tags::length_at(&head).filter(|_| !head.starts_with(b"TAG")) else {
            break;
        };
        // A size beyond the end of the file just finds nothing there.
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

    fn check(bytes: Vec<u8>, expected: Result<Container, Unrecognised>) {
        let found = sniff(&mut Cursor::new(bytes)).expect("a cursor does not fail");
        assert_eq!(found.map(|sniffed| sniffed.container), expected);
    }

    #[test]
    fn text_archives_and_nothing_are_named_for_what_they_are() {
        check(Vec::new(), Err(Unrecognised::Empty));
        check(
            b"[playlist]\nsong.mp3\n".to_vec(),
            Err(Unrecognised::Foreign("a playlist, not the songs that it names")),
        );
        check(
            b"PK\x03\x04rest".to_vec(),
            Err(Unrecognised::Foreign("a zip archive")),
        );
        check(vec![0; 100_000], Err(Unrecognised::Zeros));
        check(vec![0; 1_000], Err(Unrecognised::Unknown));
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
