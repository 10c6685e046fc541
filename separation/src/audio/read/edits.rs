//! Metadata of MP4 files that symphonia ignores: the default track, the start and end of its audio by edit
//! lists and iTunes' gapless tag, and the length of the file by its boxes.
//!
//! Reads only box headers and three small boxes, so a table of any size costs nothing.

use std::io::{Read, Seek, SeekFrom};

use symphonia::core::formats::FormatReader;

use super::bytes::{read_at, u32_be, u64_be};

/// Boxes inspected in total; a file with chapters and a cover has about a hundred.
const MAX_BOXES: usize = 10_000;

/// The largest plausible end of a file; larger sizes are treated as invalid.
const MAX_END: u64 = 1 << 48;

/// Bytes read of each relevant box; the longest needed prefix, of an edit list of two entries, is 48.
const PREFIX_BYTES: u64 = 64;

/// Decoded frames to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trim {
    /// From an edit list: start in media ticks, length in movie ticks.
    Edit {
        start: u64,
        media_scale: u32,
        length: u64,
        movie_scale: u32,
    },
    /// From the tag `iTunSMPB`, in frames.
    Gapless { start: u64, length: u64 },
}

impl Trim {
    /// Frames before the start of the audio.
    pub(super) fn start_frames(self, rate_hz: u32) -> u64 {
        match self {
            Self::Edit {
                start, media_scale, ..
            } => scaled(start, rate_hz, media_scale),
            Self::Gapless { start, .. } => start,
        }
    }

    /// Frames that belong to the audio, where the file states this more exactly than by its packets'
    /// durations. An edit's length is rounded to a movie tick, often a millisecond, so it counts only if it
    /// is shorter by more than that.
    pub(super) fn kept_frames(self, rate_hz: u32, declared: Option<u64>) -> Option<u64> {
        match self {
            Self::Gapless { length, .. } => Some(length).filter(|length| *length > 0),
            Self::Edit {
                length, movie_scale, ..
            } => {
                let kept = scaled(length, rate_hz, movie_scale);
                let tick = scaled(1, rate_hz, movie_scale) + 1;
                let available = declared?.saturating_sub(self.start_frames(rate_hz));
                (kept > 0 && kept.saturating_add(tick) < available).then_some(kept)
            }
        }
    }
}

fn scaled(ticks: u64, rate_hz: u32, scale: u32) -> u64 {
    let frames = u128::from(ticks) * u128::from(rate_hz) / u128::from(scale.max(1));
    u64::try_from(frames).unwrap_or(u64::MAX)
}

/// The layout of an MP4 file by its boxes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mp4Layout {
    /// Where its last box ends; after the end of the file if the file was cut off.
    pub(super) end: u64,
    /// Whether it has the box that describes its tracks (`moov`).
    pub(super) has_index: bool,
    pub(super) sound: Option<SoundTrack>,
}

/// The sound track that players choose: the first enabled one, else the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SoundTrack {
    pub(super) id: u32,
    /// Index among the sound tracks, from 0.
    pub(super) index: usize,
    is_enabled: bool,
    pub(super) trim: Option<Trim>,
}

/// Reads the layout; `None` where the first boxes are malformed.
pub(super) fn layout(input: &mut (impl Read + Seek)) -> Option<Mp4Layout> {
    let file_end = input.seek(SeekFrom::End(0)).ok()?;
    let mut walk = BoxWalker { input, boxes: 0 };
    let end = walk.end_of_boxes(file_end)?;
    let movie = walk.find(0, file_end, b"moov");
    Some(Mp4Layout {
        end,
        has_index: movie.is_some(),
        sound: movie.and_then(|movie| walk.sound_track(movie)),
    })
}

/// Length and start of the only edit with sound. An empty edit before it delays the sound and is ignored.
fn first_edit(list: &[u8]) -> Option<(u64, u64)> {
    let is_long = *list.first()? == 1;
    let count = u32_be(list, 4)?;
    let entry_bytes = if is_long { 20 } else { 12 };
    let mut found = None;
    for index in 0..count.min(2) as usize {
        let entry = 8 + index * entry_bytes;
        let (length, start) = if is_long {
            (u64_be(list, entry)?, u64_be(list, entry + 8)?.cast_signed())
        } else {
            (
                u64::from(u32_be(list, entry)?),
                i64::from(u32_be(list, entry + 4)?.cast_signed()),
            )
        };
        if let Ok(start) = u64::try_from(start) {
            found = found.or(Some((length, start)));
        }
    }
    let (length, start) = found?;
    // With several edits, the length of the first is not the length of the sound.
    Some((if count == 1 { length } else { 0 }, start))
}

/// Searches boxes.
pub(super) struct BoxWalker<'a, I> {
    pub(super) input: &'a mut I,
    /// Boxes inspected so far.
    pub(super) boxes: usize,
}

/// Start and end of the content of a box.
pub(super) type BoxExtent = (u64, u64);

impl<I: Read + Seek> BoxWalker<'_, I> {
    pub(super) fn find(&mut self, from: u64, end: u64, kind: &[u8; 4]) -> Option<BoxExtent> {
        let mut position = from;
        while position.checked_add(8)? <= end {
            let (found, content, next) = self.header(position, end)?;
            position = next.min(end);
            if found == *kind {
                return Some((content, position));
            }
        }
        None
    }

    /// Where the last top-level box ends by its size.
    fn end_of_boxes(&mut self, file_end: u64) -> Option<u64> {
        let mut position = 0_u64;
        while position.checked_add(8)? <= file_end {
            let (kind, _, next) = self.header(position, file_end)?;
            if next > file_end {
                let holds_audio = matches!(&kind, b"mdat" | b"moof");
                // Anything else is junk after the last box.
                return Some(if holds_audio && next <= MAX_END {
                    next
                } else {
                    file_end
                });
            }
            position = next;
        }
        Some(file_end)
    }

    /// Kind, start of the content and end, by its own size, of the box at `position`; a box without a size
    /// ends at `end`.
    fn header(&mut self, position: u64, end: u64) -> Option<([u8; 4], u64, u64)> {
        self.boxes += 1;
        if self.boxes > MAX_BOXES {
            return None;
        }
        let head = read_at(self.input, position, 16).ok()?;
        let (bytes, header_bytes) = match u32_be(&head, 0)? {
            0 => (end - position, 8),
            1 => (u64_be(&head, 8)?, 16),
            bytes => (u64::from(bytes), 8),
        };
        let next = position.checked_add(bytes.max(header_bytes))?;
        Some((*head.get(4..)?.first_chunk()?, position + header_bytes, next))
    }

    fn sound_track(&mut self, movie: BoxExtent) -> Option<SoundTrack> {
        let header = self.find(movie.0, movie.1, b"mvhd")?;
        let movie_scale = self.time_scale(header)?;
        let (mut from, mut first, mut index) = (movie.0, None, 0);
        while let Some(track) = self.find(from, movie.1, b"trak") {
            from = track.1;
            let Some(sound) = self.one_sound_track(track, movie_scale, index) else {
                continue;
            };
            index += 1;
            if sound.is_enabled {
                return Some(sound);
            }
            first = first.or(Some(sound));
        }
        first
    }

    fn one_sound_track(&mut self, track: BoxExtent, movie_scale: u32, index: usize) -> Option<SoundTrack> {
        const IS_ENABLED: u8 = 1;
        let media = self.find(track.0, track.1, b"mdia")?;
        let handler = self.find(media.0, media.1, b"hdlr")?;
        if self.prefix(handler)?.get(8..12) != Some(b"soun".as_slice()) {
            return None;
        }
        let header = self.find(track.0, track.1, b"tkhd")?;
        let header = self.prefix(header)?;
        Some(SoundTrack {
            id: after_times(&header)?,
            index,
            is_enabled: header.get(3)? & IS_ENABLED != 0,
            trim: self.trim(track, media, movie_scale),
        })
    }

    fn trim(&mut self, track: BoxExtent, media: BoxExtent, movie_scale: u32) -> Option<Trim> {
        let media_header = self.find(media.0, media.1, b"mdhd")?;
        let media_scale = self.time_scale(media_header)?;
        let edits = self.find(track.0, track.1, b"edts")?;
        let list = self.find(edits.0, edits.1, b"elst")?;
        let (length, start) = first_edit(&self.prefix(list)?)?;
        Some(Trim::Edit {
            start,
            media_scale,
            length,
            movie_scale,
        })
    }

    /// Ticks per second of an `mvhd` or `mdhd` box.
    fn time_scale(&mut self, extent: BoxExtent) -> Option<u32> {
        after_times(&self.prefix(extent)?).filter(|scale| *scale > 0)
    }

    pub(super) fn prefix(&mut self, (from, end): BoxExtent) -> Option<Vec<u8>> {
        read_at(self.input, from, end.checked_sub(from)?.min(PREFIX_BYTES)).ok()
    }
}

/// The number after the two times, short or long ones, of a `tkhd`, `mvhd` or `mdhd` box.
pub(super) fn after_times(content: &[u8]) -> Option<u32> {
    u32_be(content, if *content.first()? == 1 { 20 } else { 12 })
}

/// The trim from iTunes' gapless tag.
pub(super) fn from_metadata(reader: &mut dyn FormatReader) -> Option<Trim> {
    let metadata = reader.metadata();
    let tags = &metadata.current()?.media.tags;
    let tag = tags.iter().find(|tag| tag.raw.key.ends_with("iTunSMPB"))?;
    parse_gapless(&tag.raw.value.to_string())
}

/// Hexadecimal words: reserved, frames before, frames after, frames of audio, …
fn parse_gapless(text: &str) -> Option<Trim> {
    let mut words = text
        .split_ascii_whitespace()
        .map(|word| u64::from_str_radix(word, 16).ok());
    let (_, start, _, length) = (words.next()??, words.next()??, words.next()??, words.next()??);
    Some(Trim::Gapless { start, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gapless_tag_of_itunes_gives_start_and_length() {
        let text = " 00000000 00000840 000001CA 00000000003F31F6 00000000 00000000";
        assert_eq!(
            parse_gapless(text),
            Some(Trim::Gapless {
                start: 0x840,
                length: 0x3f_31f6
            })
        );
        assert_eq!(parse_gapless("nonsense"), None);
    }

    #[test]
    fn an_edit_shorter_by_a_rounded_millisecond_cuts_nothing() {
        let trim = Trim::Edit {
            start: 1_024,
            media_scale: 44_100,
            length: 1_000,
            movie_scale: 1_000,
        };
        assert_eq!(trim.start_frames(44_100), 1_024);
        assert_eq!(trim.kept_frames(44_100, Some(1_024 + 44_120)), None);
        assert_eq!(trim.kept_frames(44_100, Some(1_024 + 45_056)), Some(44_100));
    }

    #[test]
    fn an_edit_of_absurd_length_cuts_nothing() {
        for (length, media_scale, movie_scale) in [(u64::MAX, 44_100, 44_100), (u64::MAX, 1, 1)] {
            let trim = Trim::Edit {
                start: 0,
                media_scale,
                length,
                movie_scale,
            };
            assert_eq!(trim.kept_frames(44_100, Some(44_100)), None);
            assert_eq!(trim.kept_frames(u32::MAX, Some(u64::MAX)), None);
        }
    }

    #[test]
    fn boxes_of_absurd_sizes_end_the_search() {
        let mut file = b"\0\0\0\x08ftyp\0\0\0\x01moov".to_vec();
        file.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(layout(&mut std::io::Cursor::new(file)), None);
    }
}
