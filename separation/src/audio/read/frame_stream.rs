//! Reads MPEG audio and ADTS frame by frame, skipping tags, junk and damage.
//!
//! A frame directly after the previous one counts if both agree; anywhere else, several frames in a row must
//! agree. No frame counts for more audio than its codec allows.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::audio::Channels;
use symphonia::core::audio::layouts::{CHANNEL_LAYOUT_MONO, CHANNEL_LAYOUT_STEREO};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::errors::{Error, SeekErrorKind};
use symphonia::core::formats::well_known::{FORMAT_ID_ADTS, FORMAT_ID_MP3};
use symphonia::core::formats::{FormatInfo, FormatReader, MediaInfo, SeekMode, SeekTo, SeekedTo, Track};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::{Metadata, MetadataLog};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::encoder_tag::{self, EncoderTag};
use super::frames::{self, HEADER_BYTES, Header, MAX_FRAME_BYTES, Parse};
use super::tags;

/// Frames in a row that resume the stream after other bytes, if they agree with it.
const RUN_OF_SAME_KIND: usize = 2;

/// Frames in a row that start a stream of another kind.
const RUN_OF_OTHER_KIND: usize = 4;

/// Bytes of the longest run and the header after it.
const RUN_BYTES: usize = RUN_OF_OTHER_KIND * MAX_FRAME_BYTES + HEADER_BYTES;

/// Bytes at the end, neither frames nor a tag, that count as damage: more than padding or the rest of a frame
/// that was cut off.
const MIN_JUNK_BYTES: u64 = 16_384;

/// Bytes whose frames are counted to estimate the length of a stream without a tag: 1 MiB, a minute at 128
/// kbit/s.
const ESTIMATE_BYTES: u64 = 1_048_576;

/// Bytes read at a time, and consumed bytes kept before the buffer is compacted.
const PIECE_BYTES: usize = 65_536;

const MPEG_INFO: FormatInfo = FormatInfo {
    format: FORMAT_ID_MP3,
    short_name: "mpeg",
    long_name: "MPEG audio",
};

const ADTS_INFO: FormatInfo = FormatInfo {
    format: FORMAT_ID_ADTS,
    short_name: "adts",
    long_name: "Audio Data Transport Stream",
};

/// A stream of frames without a container.
pub(super) struct FrameStream {
    input: Window,
    parse: Parse,
    /// A header of the current stream.
    kind: Header,
    /// Whether the next frame is expected exactly where the last one ended.
    is_in_place: bool,
    /// Bytes skipped since the last frame that were not a tag.
    junk_bytes: u64,
    is_ended: bool,
    media: MediaInfo,
    track: Track,
    metadata: MetadataLog,
    /// Timestamp of the next frame; negative for the encoder's delay.
    next: i64,
    /// Start and end of the encoder's padding, by its tag.
    padding: Option<(i64, i64)>,
    /// Whether frames were lost, so that timestamps are too low.
    is_late: bool,
}

impl FrameStream {
    /// Starts at `offset`, where the first frame was recognized.
    pub(super) fn open(
        mut input: MediaSourceStream<'static>,
        offset: u64,
        parse: Parse,
    ) -> Result<Self, Error> {
        let end = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(offset))?;
        let mut input = Window::new(input);
        let head = input.peek(MAX_FRAME_BYTES)?;
        let kind = parse(head).ok_or(Error::DecodeError("its first frame cannot be read"))?;
        let frame = head.get(..kind.bytes).unwrap_or(head);
        let tag = encoder_tag::read(frame, &kind);
        if tag.is_some() {
            input.advance(kind.bytes);
        }
        let mut stream = Self {
            input,
            parse,
            kind,
            is_in_place: true,
            junk_bytes: 0,
            is_ended: false,
            media: MediaInfo::default(),
            track: track(&kind),
            metadata: MetadataLog::default(),
            next: 0,
            padding: None,
            is_late: false,
        };
        match tag {
            Some(tag) => stream.take_tag(tag),
            None => stream.track.num_frames = Some(stream.estimate(end - offset)?),
        }
        if stream.track.num_frames.is_some() && tag.is_some() {
            stream.track.duration = stream.track.num_frames.map(Duration::from);
        }
        stream.media = MediaInfo::from_track(&stream.track);
        Ok(stream)
    }

    fn take_tag(&mut self, tag: EncoderTag) {
        let audio = tag
            .mpeg_frames
            .map(|count| u64::from(count) * u64::from(self.kind.frames));
        let Some(gapless) = tag.gapless else {
            self.track.num_frames = audio;
            return;
        };
        self.next = -i64::from(gapless.delay);
        self.track.delay = Some(gapless.delay);
        self.track.padding = Some(gapless.padding);
        self.track.num_frames =
            audio.map(|audio| audio.saturating_sub(u64::from(gapless.delay + gapless.padding)));
        self.padding = self
            .track
            .num_frames
            .and_then(|end| i64::try_from(end).ok())
            .map(|end| (end, end + i64::from(gapless.padding)));
    }

    /// Frames of audio, estimated from the mean length of the inspected frames.
    fn estimate(&mut self, bytes: u64) -> io::Result<u64> {
        let inspected = usize::try_from(bytes.min(ESTIMATE_BYTES)).unwrap_or(usize::MAX);
        let content = self.input.peek(inspected)?;
        let (mut position, mut count) = (0, 0_u64);
        while let Some(header) = content.get(position..).and_then(self.parse) {
            position += header.bytes;
            count += 1;
        }
        let audio = count * u64::from(self.kind.frames);
        if content.len() as u64 == bytes {
            return Ok(audio);
        }
        let estimated = u128::from(audio) * u128::from(bytes) / (position.max(1) as u128);
        Ok(u64::try_from(estimated).unwrap_or(u64::MAX))
    }

    fn next_frame(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            if self.is_ended {
                return Ok(None);
            }
            if !self.is_in_place {
                self.find()?;
                continue;
            }
            let head = self.input.peek(MAX_FRAME_BYTES)?;
            let Some(header) = (self.parse)(head).filter(|header| header.agrees_with(&self.kind)) else {
                self.is_in_place = false;
                continue;
            };
            if let Some(cut) = self.is_cut_after(&header)? {
                self.input.advance(cut);
                self.junk_bytes += cut as u64;
                self.is_in_place = false;
                continue;
            }
            let head = self.input.peek(MAX_FRAME_BYTES)?;
            let Some(frame) = head.get(..header.bytes) else {
                // The last frame was cut off.
                self.is_ended = true;
                continue;
            };
            if encoder_tag::read(frame, &header).is_some() {
                // Part of another file that was appended.
                self.input.advance(header.bytes);
                continue;
            }
            let data = frame[header.skipped_bytes..].to_vec();
            self.input.advance(header.bytes);
            let is_last = self.input.peek(1)?.is_empty();
            return Ok(Some(self.packet(&header, data, is_last)));
        }
    }

    /// Bytes after which the current frame was cut off because another stream begins inside it.
    fn is_cut_after(&mut self, header: &Header) -> io::Result<Option<usize>> {
        let head = self.input.peek(header.bytes + RUN_BYTES)?;
        let is_followed = match head.get(header.bytes..) {
            None | Some([]) => true,
            Some(behind) => {
                tags::length_at(behind).is_some()
                    || (self.parse)(behind).is_some_and(|next| next.agrees_with(&self.kind))
            }
        };
        if is_followed {
            return Ok(None);
        }
        let is_end = head.len() < header.bytes + RUN_BYTES;
        let inside = header.skipped_bytes.max(HEADER_BYTES)..header.bytes;
        Ok(inside
            .filter(|position| head[*position] == 0xff)
            .find(|position| frames::is_run(&head[*position..], self.parse, RUN_OF_OTHER_KIND, is_end)))
    }

    fn packet(&mut self, header: &Header, data: Vec<u8>, is_last: bool) -> Packet {
        let frames = i64::from(header.frames);
        if is_last
            && self.is_late
            && let Some((_, end)) = self.padding
        {
            // After lost frames, the last one still ends with the padding.
            self.next = end - frames;
        }
        let start = self.next;
        let end = start + frames;
        let overlap = |from: i64, to: i64| u64::try_from(end.min(to) - start.max(from)).unwrap_or(0);
        let trim_start = overlap(i64::MIN, 0);
        let trim_end = self.padding.map_or(0, |(from, to)| overlap(from, to));
        self.next = end;
        let kept = u64::from(header.frames).saturating_sub(trim_start + trim_end);
        let mut packet = Packet::new(0, Timestamp::from(start), Duration::from(kept), data);
        packet.trim_start = Duration::from(trim_start);
        packet.trim_end = Duration::from(trim_end);
        packet
    }

    /// Skips a tag or a byte, or finds the next frame. Returns `ResetRequired` where that frame belongs to
    /// another stream, and `DecodeError` once for lost bytes.
    fn find(&mut self) -> Result<(), Error> {
        let head = self.input.peek(RUN_BYTES)?;
        let is_end = head.len() < RUN_BYTES;
        if head.is_empty() {
            self.is_ended = true;
            let is_damage = self.junk_bytes >= MIN_JUNK_BYTES;
            return if is_damage { Err(LOST) } else { Ok(()) };
        }
        // Inside other bytes, the first letters of a tag mean nothing.
        if self.junk_bytes == 0
            && let Some(length) = tags::length_at(head)
        {
            // Of a tag that declares more bytes than the file has, only the header is skipped.
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if self.input.skip(length)? {
                return Ok(());
            }
        }
        let head = self.input.peek(RUN_BYTES)?;
        if let Some(header) = (self.parse)(head) {
            let is_same = header.agrees_with(&self.kind);
            let min_frames = if is_same {
                RUN_OF_SAME_KIND
            } else {
                RUN_OF_OTHER_KIND
            };
            let is_last = is_same && is_end && header.bytes == head.len();
            if is_last || frames::is_run(head, self.parse, min_frames, is_end) {
                if std::mem::take(&mut self.junk_bytes) > 0 {
                    self.is_late = true;
                    return Err(LOST);
                }
                self.is_in_place = true;
                if !is_same {
                    self.begin(header);
                    return Err(Error::ResetRequired);
                }
                return Ok(());
            }
        }
        let passed = head
            .iter()
            .skip(1)
            .position(|byte| *byte == 0xff)
            .map_or(head.len(), |position| position + 1);
        self.junk_bytes += passed as u64;
        self.input.advance(passed);
        Ok(())
    }

    /// Starts another stream.
    fn begin(&mut self, header: Header) {
        self.kind = header;
        self.track = track(&header);
        self.next = 0;
        self.padding = None;
        self.is_late = false;
    }
}

const LOST: Error = Error::DecodeError("bytes between its frames are no frames");

fn track(kind: &Header) -> Track {
    let mut params = AudioCodecParameters::new();
    params.for_codec(kind.codec).with_sample_rate(kind.rate_hz);
    match kind.channels {
        Some(1) => params.with_channels(CHANNEL_LAYOUT_MONO),
        Some(2) => params.with_channels(CHANNEL_LAYOUT_STEREO),
        Some(count) => params.with_channels(Channels::Discrete(count.into())),
        None => &mut params,
    };
    let mut track = Track::new(0);
    track.with_codec_params(CodecParameters::Audio(params));
    track
}

impl FormatReader for FrameStream {
    fn format_info(&self) -> &FormatInfo {
        if self.kind.skipped_bytes > 0 {
            &ADTS_INFO
        } else {
            &MPEG_INFO
        }
    }

    fn media_info(&self) -> &MediaInfo {
        &self.media
    }

    fn metadata(&mut self) -> Metadata<'_> {
        self.metadata.metadata()
    }

    fn seek(&mut self, _: SeekMode, _: SeekTo) -> Result<SeekedTo, Error> {
        Err(Error::SeekError(SeekErrorKind::Unseekable))
    }

    fn tracks(&self) -> &[Track] {
        std::slice::from_ref(&self.track)
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, Error> {
        self.next_frame()
    }

    fn into_inner<'s>(self: Box<Self>) -> MediaSourceStream<'s>
    where
        Self: 's,
    {
        self.input.input
    }
}

/// The inspected part of the input, before it is consumed.
struct Window {
    input: MediaSourceStream<'static>,
    bytes: Vec<u8>,
    used: usize,
}

impl Window {
    fn new(input: MediaSourceStream<'static>) -> Self {
        Self {
            input,
            bytes: Vec::new(),
            used: 0,
        }
    }

    /// The next `count` bytes; fewer at the end of the input.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let missing = (self.used + count).saturating_sub(self.bytes.len());
        if missing > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
            let wanted = missing.max(PIECE_BYTES) as u64;
            self.input.by_ref().take(wanted).read_to_end(&mut self.bytes)?;
        }
        let end = self.bytes.len().min(self.used + count);
        Ok(&self.bytes[self.used..end])
    }

    fn advance(&mut self, count: usize) {
        self.used = self.bytes.len().min(self.used + count);
    }

    /// Skips `count` bytes if the input has that many.
    fn skip(&mut self, count: usize) -> io::Result<bool> {
        let buffered = self.bytes.len() - self.used;
        if count <= buffered {
            self.advance(count);
            return Ok(true);
        }
        let position = self.input.stream_position()?;
        let end = self.input.seek(SeekFrom::End(0))?;
        let target = position.saturating_add((count - buffered) as u64);
        let is_there = target <= end;
        self.input
            .seek(SeekFrom::Start(if is_there { target } else { position }))?;
        if is_there {
            self.bytes.clear();
            self.used = 0;
        }
        Ok(is_there)
    }
}
