//! Which audio track of a Matroska file is the default: symphonia takes a flag that is left out for one that is not set.

use std::io::{self, Read, Seek, SeekFrom};

/// Elements looked at in all; a file with many tracks and tags has about a thousand before its audio.
const MAX_ELEMENTS: usize = 10_000;

const SEGMENT: u32 = 0x1853_8067;
const TRACKS: u32 = 0x1654_ae6b;
const CLUSTER: u32 = 0x1f43_b675;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_KIND: u32 = 0x83;
const IS_DEFAULT: u32 = 0x88;

const AUDIO: u64 = 2;

/// The number of the first audio track that is a default, or else of the first; `None` where none comes before the
/// audio itself.
pub(super) fn default_track(input: &mut (impl Read + Seek)) -> Option<u32> {
    let end = input.seek(SeekFrom::End(0)).ok()?;
    let mut walk = Walk { input, elements: 0 };
    let segment = walk.find(0, end, SEGMENT)?;
    let tracks = walk.find(segment.0, segment.1, TRACKS)?;
    let (mut from, mut first) = (tracks.0, None);
    while let Some(entry) = walk.find(from, tracks.1, TRACK_ENTRY) {
        from = entry.1;
        if walk.number(entry, TRACK_KIND) != Some(AUDIO) {
            continue;
        }
        let number = u32::try_from(walk.number(entry, TRACK_NUMBER)?).ok();
        if walk.number(entry, IS_DEFAULT).unwrap_or(1) == 1 {
            return number;
        }
        first = first.or(number);
    }
    first
}

struct Walk<'a, I> {
    input: &'a mut I,
    elements: usize,
}

/// First byte and end of the content of an element.
type Extent = (u64, u64);

impl<I: Read + Seek> Walk<'_, I> {
    fn find(&mut self, from: u64, end: u64, id: u32) -> Option<Extent> {
        let mut position = from;
        while position < end {
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return None;
            }
            let head = self.bytes(position, 12).ok()?;
            let (found, id_bytes) = variable(&head, 4, true)?;
            let (size, size_bytes) = variable(head.get(id_bytes..)?, 8, false)?;
            let start = position + (id_bytes + size_bytes) as u64;
            let is_unknown = size == (1 << (7 * size_bytes)) - 1;
            let next = if is_unknown {
                end
            } else {
                start.checked_add(size)?.min(end)
            };
            if found == u64::from(id) {
                return Some((start, next));
            }
            if found == u64::from(CLUSTER) {
                return None;
            }
            position = next;
        }
        None
    }

    fn number(&mut self, (from, end): Extent, id: u32) -> Option<u64> {
        let (from, end) = self.find(from, end, id)?;
        let bytes = usize::try_from(end - from).ok().filter(|bytes| *bytes <= 8)?;
        let content = self.bytes(from, bytes).ok()?;
        Some(
            content
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    }

    fn bytes(&mut self, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.input.seek(SeekFrom::Start(from))?;
        let mut content = Vec::with_capacity(bytes);
        self.input.by_ref().take(bytes as u64).read_to_end(&mut content)?;
        Ok(content)
    }
}

/// A number whose first bits tell how many bytes it has, at most `most`; in an identifier those bits stay.
fn variable(bytes: &[u8], most: usize, keeps_marker: bool) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    if length > most {
        return None;
    }
    let first = if keeps_marker {
        first
    } else {
        first & !(0x80_u8 >> (length - 1))
    };
    let rest = bytes.get(1..length)?;
    let value = rest
        .iter()
        .fold(u64::from(first), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}
