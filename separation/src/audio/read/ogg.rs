//! Works around symphonia's Ogg reader: finds the codecs, and where a stream ends.
//!
//! Only the last page of a stream may cut off frames. A page may lack a position (granule position -1,
//! although packets end on it); symphonia treats that as an end before all of its packets.

use std::collections::VecDeque;
use std::io::{self, Read, Seek};

use symphonia::core::errors::{Error, Result};
use symphonia::core::formats::{FormatInfo, FormatReader, MediaInfo, SeekMode, SeekTo, SeekedTo, Track};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::Metadata;
use symphonia::core::packet::Packet;
use symphonia::core::units::Duration;
use symphonia::default::formats::OggReader;

use super::bytes::read_at;

/// Packets read ahead: as many as can end on one page, which has 255 segments.
const MAX_AHEAD: usize = 255;

/// First pages inspected, one for each multiplexed stream; a film has a handful.
const MAX_FIRST_PAGES: usize = 64;

/// Bytes of a first packet that are inspected: an Opus header up to its mapping family.
const HEAD_BYTES: usize = 19;

/// Checks that we decode the codec of at least one stream; symphonia would search the complete file for one.
pub(super) fn check_codecs(input: &mut (impl Read + Seek), offset: u64) -> Result<()> {
    let mut other = None;
    let mut position = offset;
    for _ in 0..MAX_FIRST_PAGES {
        let Some((head, bytes)) = first_page(input, position)? else {
            break;
        };
        match codec(&head) {
            Codec::Ours => return Ok(()),
            Codec::Other(name) => other = other.or(Some(name)),
            Codec::Unknown => {}
        }
        position += bytes;
    }
    match other {
        Some(name) => Err(Error::Unsupported(name)),
        None if position == offset => Ok(()),
        None => Err(Error::Unsupported("none of its streams has a known codec")),
    }
}

/// The beginning of the packet on a first page, and the length of the page; `None` after the first pages.
fn first_page(input: &mut (impl Read + Seek), position: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
    const HEADER_BYTES: usize = 27;
    const IS_FIRST: u8 = 2;
    let max_bytes = HEADER_BYTES + 255 + HEAD_BYTES;
    let page = read_at(input, position, max_bytes as u64)?;
    let is_first = page.starts_with(b"OggS") && page.get(5).is_some_and(|flags| flags & IS_FIRST != 0);
    let segments = page.get(26).map_or(0, |count| usize::from(*count));
    let (true, Some(table)) = (is_first, page.get(HEADER_BYTES..HEADER_BYTES + segments)) else {
        return Ok(None);
    };
    let body: usize = table.iter().map(|bytes| usize::from(*bytes)).sum();
    let from = HEADER_BYTES + segments;
    let head = page[from..].iter().copied().take(body.min(HEAD_BYTES)).collect();
    Ok(Some((head, (from + body) as u64)))
}

#[derive(Debug, PartialEq, Eq)]
enum Codec {
    Ours,
    /// A sentence about the file.
    Other(&'static str),
    Unknown,
}

fn codec(head: &[u8]) -> Codec {
    if head.starts_with(b"OpusHead") {
        return match head.get(18) {
            Some(0 | 1) => Codec::Ours,
            Some(2 | 3) => Codec::Other("it is Opus with ambisonics"),
            _ => Codec::Other("it is Opus with channels that have no positions"),
        };
    }
    if head.starts_with(b"\x01vorbis") || head.starts_with(b"\x7fFLAC") {
        Codec::Ours
    } else if head.starts_with(b"Speex   ") {
        Codec::Other("it is Speex")
    } else if head.starts_with(b"CELT    ") {
        Codec::Other("it is CELT")
    } else if head.starts_with(b"fLaC") {
        Codec::Other("it is FLAC in an old Ogg mapping")
    } else {
        Codec::Unknown
    }
}

/// An Ogg reader that cuts packets off only at the end of a stream.
pub(super) struct OggStreams {
    inner: OggReader<'static>,
    /// Packets read ahead.
    ahead: VecDeque<Packet>,
    /// The result after them, if it was not a packet.
    behind: Option<Result<Option<Packet>>>,
}

impl OggStreams {
    pub(super) fn new(inner: OggReader<'static>) -> Self {
        Self {
            inner,
            ahead: VecDeque::new(),
            behind: None,
        }
    }

    /// Reads ahead until it is known whether the end of the stream cuts `packet` off.
    fn look_ahead(&mut self, packet: Packet) {
        let track_id = packet.track_id;
        let has_end = self.has_end(track_id);
        self.ahead.push_back(packet);
        let is_end = loop {
            if self.ahead.len() > MAX_AHEAD {
                break false;
            }
            match self.inner.next_packet() {
                Ok(Some(next)) => {
                    let goes_on = next.track_id == track_id && next.trim_end == Duration::ZERO;
                    self.ahead.push_back(next);
                    if goes_on {
                        break false;
                    }
                }
                other => {
                    self.behind = Some(other);
                    break has_end;
                }
            }
        };
        if !is_end {
            self.ahead.iter_mut().for_each(restore);
        }
    }

    /// Whether the last page of a stream has a position.
    fn has_end(&self, track_id: u32) -> bool {
        let track = self.inner.tracks().iter().find(|track| track.id == track_id);
        let end = track.and_then(|track| track.num_frames);
        end.is_some_and(|frames| frames > 0 && i64::try_from(frames).is_ok())
    }
}

/// Undoes a cut at the end of a packet.
fn restore(packet: &mut Packet) {
    packet.dur = packet.dur.saturating_add(packet.trim_end);
    packet.trim_end = Duration::ZERO;
}

impl FormatReader for OggStreams {
    fn next_packet(&mut self) -> Result<Option<Packet>> {
        if let Some(packet) = self.ahead.pop_front() {
            return Ok(Some(packet));
        }
        if let Some(behind) = self.behind.take() {
            return behind;
        }
        match self.inner.next_packet()? {
            Some(packet) if packet.trim_end > Duration::ZERO => {
                self.look_ahead(packet);
                Ok(self.ahead.pop_front())
            }
            next => Ok(next),
        }
    }

    fn format_info(&self) -> &FormatInfo {
        self.inner.format_info()
    }

    fn media_info(&self) -> &MediaInfo {
        self.inner.media_info()
    }

    fn metadata(&mut self) -> Metadata<'_> {
        self.inner.metadata()
    }

    fn tracks(&self) -> &[Track] {
        self.inner.tracks()
    }

    fn seek(&mut self, mode: SeekMode, to: SeekTo) -> Result<SeekedTo> {
        self.ahead.clear();
        self.behind = None;
        self.inner.seek(mode, to)
    }

    fn into_inner<'s>(self: Box<Self>) -> MediaSourceStream<'s>
    where
        Self: 's,
    {
        Box::new(self.inner).into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn page(flags: u8, packet: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend_from_slice(&[0; 20]);
        page.extend_from_slice(&[1, u8::try_from(packet.len()).unwrap()]);
        page.extend_from_slice(packet);
        page
    }

    fn check(pages: &[Vec<u8>]) -> Result<()> {
        check_codecs(&mut Cursor::new(pages.concat()), 0)
    }

    #[test]
    fn one_known_codec_among_the_streams_is_enough() {
        let theora = page(2, b"\x80theora and more");
        let vorbis = page(2, b"\x01vorbis and more");
        let opus = |family: u8| {
            page(
                2,
                &[b"OpusHead\x01\x04\0\0\0\0\0\0\0\0".as_slice(), &[family]].concat(),
            )
        };
        assert!(check(&[theora.clone(), vorbis]).is_ok());
        assert!(check(&[opus(1)]).is_ok());
        assert!(check(&[]).is_ok());
        for (pages, expected) in [
            (vec![theora.clone(), page(2, b"Speex   1.2")], "it is Speex"),
            (vec![opus(2)], "it is Opus with ambisonics"),
            (
                vec![theora, page(0, b"\x01vorbis")],
                "none of its streams has a known codec",
            ),
        ] {
            assert!(matches!(check(&pages), Err(Error::Unsupported(found)) if found == expected));
        }
    }
}
