//! What the files of stems are called.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use sha2::{Digest as _, Sha256};

/// The longest name of a file in bytes, of Linux's own file systems.
const MAX_NAME_BYTES: usize = 255;

/// The name of a song and an ending. Where the file system would not take it, the song's name is cut off and gets a
/// tag made of all of it, so that two long names stay two.
pub(super) fn name(song: &OsStr, ending: &str) -> OsString {
    let song = song.as_bytes();
    let mut name = if song.len() + ending.len() <= MAX_NAME_BYTES {
        song.to_vec()
    } else {
        let tag: String = Sha256::digest(song)[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let tag = format!("~{tag}");
        let most = MAX_NAME_BYTES
            .saturating_sub(ending.len() + tag.len())
            .min(song.len());
        [&song[..whole_chars(song, most)], tag.as_bytes()].concat()
    };
    name.extend_from_slice(ending.as_bytes());
    OsString::from_vec(name)
}

/// The most bytes up to `most` that cut no character of UTF-8 in two.
fn whole_chars(text: &[u8], most: usize) -> usize {
    let is_inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // Four bytes are the longest character: what has more of these is no UTF-8.
    (most.saturating_sub(3)..=most)
        .rev()
        .find(|at| !is_inside(at))
        .unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_off_only_where_they_must_be_and_between_characters() {
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
    fn long_names_that_differ_at_their_end_stay_two() {
        let song = |last: &str| name(OsStr::new(&("x".repeat(250) + last)), "_vocals.wav");
        assert_ne!(song("a"), song("b"));
    }
}
