//! Metadata of Matroska files that symphonia ignores: the default audio track (symphonia treats an absent
//! default flag as unset), and the length of the file by its segment.

use std::io::{Read, Seek, SeekFrom};

use super::bytes::{big_endian, read_at};

/// Elements inspected in total; a file with many tracks and tags has about a thousand before its audio.
const MAX_ELEMENTS: usize = 10_000;

/// The largest plausible end of a file; larger sizes are treated as invalid.
const MAX_END: u64 = 1 << 48;

const SEGMENT: u32 = 0x1853_8067;
const TRACKS: u32 = 0x1654_ae6b;
const CLUSTER: u32 = 0x1f43_b675;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_KIND: u32 = 0x83;
const IS_DEFAULT: u32 = 0x88;

const AUDIO: u64 = 2;

/// The layout of a Matroska file by its first elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MatroskaLayout {
    /// Where its segment ends by its size; after the end of the file if the file was cut off.
    pub(super) end: u64,
    /// The first default audio track, or else the first one; `None` where no track comes before the audio.
    pub(super) track: Option<AudioTrack>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AudioTrack {
    pub(super) number: u32,
    /// Index among the audio tracks, from 0.
    pub(super) index: usize,
}

/// Reads the layout; `None` where the first elements are malformed.
pub(super) fn layout(input: &mut (impl Read + Seek)) -> Option<MatroskaLayout> {
    let file_end = input.seek(SeekFrom::End(0)).ok()?;
    let mut walk = ElementWalker { input, elements: 0 };
    let segment = walk.find(0, file_end, SEGMENT)?;
    Some(MatroskaLayout {
        end: segment
            .claimed_end
            .filter(|end| *end <= MAX_END)
            .unwrap_or(file_end)
            .max(file_end),
        track: walk.default_track(segment),
    })
}

struct ElementWalker<'a, I> {
    input: &'a mut I,
    elements: usize,
}

#[derive(Clone, Copy)]
struct ElementExtent {
    start: u64,
    /// End within its parent.
    end: u64,
    /// End by its declared size, if known.
    claimed_end: Option<u64>,
}

impl<I: Read + Seek> ElementWalker<'_, I> {
    fn find(&mut self, from: u64, end: u64, id: u32) -> Option<ElementExtent> {
        let mut position = from;
        while position < end {
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return None;
            }
            let head = read_at(self.input, position, 12).ok()?;
            let (found, id_bytes) = variable(&head, 4, true)?;
            let (size, size_bytes) = variable(head.get(id_bytes..)?, 8, false)?;
            let start = position + (id_bytes + size_bytes) as u64;
            let is_unknown = size == (1 << (7 * size_bytes)) - 1;
            let claimed_end = if is_unknown {
                None
            } else {
                Some(start.checked_add(size)?)
            };
            let next = claimed_end.map_or(end, |claimed| claimed.min(end));
            if found == u64::from(id) {
                return Some(ElementExtent {
                    start,
                    end: next,
                    claimed_end,
                });
            }
            if found == u64::from(CLUSTER) {
                return None;
            }
            position = next;
        }
        None
    }

    fn default_track(&mut self, segment: ElementExtent) -> Option<AudioTrack> {
        let tracks = self.find(segment.start, segment.end, TRACKS)?;
        let (mut from, mut first, mut index) = (tracks.start, None, 0);
        while let Some(entry) = self.find(from, tracks.end, TRACK_ENTRY) {
            from = entry.end;
            if self.number(entry, TRACK_KIND) != Some(AUDIO) {
                continue;
            }
            let number = u32::try_from(self.number(entry, TRACK_NUMBER)?).ok()?;
            let track = AudioTrack { number, index };
            if self.number(entry, IS_DEFAULT).unwrap_or(1) == 1 {
                return Some(track);
            }
            first = first.or(Some(track));
            index += 1;
        }
        first
    }

    fn number(&mut self, parent: ElementExtent, id: u32) -> Option<u64> {
        let found = self.find(parent.start, parent.end, id)?;
        let bytes = Some(found.end - found.start).filter(|bytes| *bytes <= 8)?;
        let content = read_at(self.input, found.start, bytes).ok()?;
        Some(big_endian(&content))
    }
}

/// A number whose leading bits give its length, at most `max_bytes` bytes; an identifier keeps those bits.
fn variable(bytes: &[u8], max_bytes: usize, keeps_marker: bool) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    if length > max_bytes {
        return None;
    }
    let mut number = [0; 8];
    number[8 - length..].copy_from_slice(bytes.get(..length)?);
    if !keeps_marker {
        number[8 - length] &= !(0x80_u8 >> (length - 1));
    }
    let value = u64::from_be_bytes(number);
    Some((value, length))
}
