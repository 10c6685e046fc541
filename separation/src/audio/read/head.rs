//! Judges a file by its first bytes, before the rest of it is there.

use std::io::Cursor;
use std::time::Duration;

use super::sniff::{Unrecognized, offset_after_tags, sniff};
use super::source::declared_duration;

/// Bytes after the tags among which audio frames are found, if there are any: more than 16 of the longest MPEG frames
/// after the longest padding.
const SEARCHED_BYTES: u64 = 131_072;

/// Result of an inspection of the first bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileHead {
    /// It is not audio, for this reason.
    NotAudio(String),
    /// It begins like audio, or the first bytes do not show what it is.
    MaybeAudio {
        /// Its length, if its header declares it.
        duration: Option<Duration>,
    },
}

/// Judges a file by its first bytes; `is_complete` if these are all of it. Takes memory for a copy of them.
///
/// A few hundred KiB suffice for all formats. A length in a header is what the file declares: it may be wrong.
pub fn inspect_head(head: &[u8], is_complete: bool) -> FileHead {
    let mut input = Cursor::new(head);
    let maybe = FileHead::MaybeAudio { duration: None };
    let Ok(sniffed) = sniff(&mut input) else {
        return maybe;
    };
    let unrecognized = match sniffed {
        Ok(sniffed) => {
            let duration = declared_duration(head, is_complete, sniffed);
            return FileHead::MaybeAudio { duration };
        }
        Err(unrecognized) => unrecognized,
    };
    let is_shown = match unrecognized {
        Unrecognized::ForFfmpeg(_) => false,
        Unrecognized::Foreign(_) | Unrecognized::Zeros => true,
        Unrecognized::Empty | Unrecognized::OnlyTags => is_complete,
        Unrecognized::Unknown => {
            let searched =
                offset_after_tags(&mut input).map(|offset| (head.len() as u64).saturating_sub(offset));
            is_complete || searched.is_ok_and(|bytes| bytes >= SEARCHED_BYTES)
        }
    };
    match is_shown {
        true => FileHead::NotAudio(unrecognized.to_string()),
        false => maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A WAV header that declares `seconds` of 16-bit mono at 8 kHz, and `bytes` of samples.
    fn wav(seconds: u32, bytes: usize) -> Vec<u8> {
        let data_bytes = seconds * 16_000;
        let mut file = b"RIFF".to_vec();
        file.extend((data_bytes + 36).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
        file.extend(data_bytes.to_le_bytes());
        file.extend(vec![0; bytes]);
        file
    }

    #[test]
    fn a_header_gives_the_length_before_the_samples_are_there() {
        let declared = |head: &[u8], is_complete| inspect_head(head, is_complete);
        let of = |seconds| FileHead::MaybeAudio {
            duration: Some(Duration::from_secs(seconds)),
        };
        let head = wav(3_600, 200_000);
        assert_eq!(declared(&head, false), of(3_600));
        assert_eq!(declared(&wav(3_600, 32_000), true), of(2), "the end is known");
    }

    #[test]
    fn only_what_the_first_bytes_show_is_refused() {
        let refused =
            |head: &[u8], is_complete| matches!(inspect_head(head, is_complete), FileHead::NotAudio(_));
        assert!(refused(b"<!doctype html><html>", false));
        assert!(refused(b"", true));
        let noise: Vec<u8> = (0..200_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 & 0x7f)
            .collect();
        assert!(refused(&noise, false));
        assert!(refused(&noise[..100], true));
        assert!(!refused(&noise[..100], false), "more may follow");
        // An ID3 tag of 1 MiB with a cover: the audio begins after the first bytes.
        let mut tagged = b"ID3\x04\0\0\0\x40\0\0".to_vec();
        tagged.extend(&noise);
        assert!(!refused(&tagged, false));
        assert!(refused(&tagged, true));
        assert!(!refused(b"wvpk and more", true), "ffmpeg may decode it");
    }
}
