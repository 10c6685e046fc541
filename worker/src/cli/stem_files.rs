//! File names of stems.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::model::hexadecimal;
use sha2::{Digest as _, Sha256};

/// Maximum length of a file name on Linux file systems.
pub(super) const MAX_NAME_BYTES: usize = 255;

/// A song's name with an ending, shortened to what file systems allow.
pub(super) fn name(song: &OsStr, ending: &str) -> OsString {
    let mut name = shortened(song.as_bytes(), MAX_NAME_BYTES.saturating_sub(ending.len()));
    name.extend_from_slice(ending.as_bytes());
    OsString::from_vec(name)
}

/// A song's name in at most `max_bytes`. A name that is too long is cut and gets a hash of the complete name, so that two
/// long names stay distinct.
pub(super) fn shortened(song: &[u8], max_bytes: usize) -> Vec<u8> {
    if song.len() <= max_bytes {
        return song.to_vec();
    }
    let tag = format!("~{}", hexadecimal(&Sha256::digest(song)[..4]));
    let cut = char_boundary(song, max_bytes.saturating_sub(tag.len()));
    [&song[..cut], tag.as_bytes()].concat()
}

/// The largest number of bytes up to `max_bytes` that splits no UTF-8 character.
fn char_boundary(text: &[u8], max_bytes: usize) -> usize {
    let is_inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A UTF-8 character has at most four bytes.
    (max_bytes.saturating_sub(3)..=max_bytes)
        .rev()
        .find(|at| !is_inside(at))
        .unwrap_or(max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_too_long_names_are_cut_and_only_between_characters() {
        assert_eq!(name(OsStr::new("song"), "_vocals.wav"), "song_vocals.wav");
        let long = "x".repeat(238);
        assert_eq!(name(OsStr::new(&long), "_instrumental.wav").len(), 255);
        assert!(
            name(OsStr::new(&long), "_instrumental.wav")
                .to_string_lossy()
                .starts_with(&long)
        );
        for song in ["x".repeat(251), "é".repeat(125), "あ".repeat(83)] {
            for ending in ["_vocals.wav", "_instrumental.flac"] {
                let name = name(OsStr::new(&song), ending);
                assert!((250..=255).contains(&name.len()), "{}", name.len());
                let name = name.to_str().expect("whole characters");
                assert!(name.contains('~') && name.ends_with(ending), "{name}");
            }
        }
        let bytes = OsString::from_vec(vec![0x80; 255]);
        assert_eq!(name(&bytes, ".wav").len(), 255);
    }

    #[test]
    fn long_names_that_differ_at_their_end_stay_distinct() {
        let song = |last: &str| name(OsStr::new(&("x".repeat(250) + last)), "_vocals.wav");
        assert_ne!(song("a"), song("b"));
    }
}
