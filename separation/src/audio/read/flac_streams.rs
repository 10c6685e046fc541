//! Reads concatenated FLAC files, one stream after the other; symphonia would treat the next stream as part
//! of the first.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::errors::Error;
use symphonia::core::formats::{
    FormatInfo, FormatOptions, FormatReader, MediaInfo, SeekMode, SeekTo, SeekedTo, Track,
};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::Metadata;
use symphonia::core::packet::Packet;
use symphonia::default::formats::FlacReader;

/// How a stream begins: the signature, and the header of the first block, whose size is fixed.
const MARKER: &[u8] = b"fLaC\0\0\0\x22";

/// The streams of a file.
pub(super) struct FlacStreams {
    /// `None` only while the next stream is being opened.
    reader: Option<Box<FlacReader<'static>>>,
    /// Where the current stream ends because another begins; `u64::MAX` where no other was found.
    next_start: Arc<AtomicU64>,
}

impl FlacStreams {
    pub(super) fn open(input: Box<dyn MediaSource>, offset: u64) -> Result<Self, Error> {
        let next_start = Arc::new(AtomicU64::new(u64::MAX));
        let source = OneStream {
            inner: input,
            position: 0,
            start: offset,
            next_start: Arc::clone(&next_start),
        };
        let mut stream = MediaSourceStream::new(Box::new(source), Default::default());
        stream.seek(SeekFrom::Start(offset))?;
        let reader = FlacReader::try_new(stream, FormatOptions::default())?;
        Ok(Self {
            reader: Some(Box::new(reader)),
            next_start,
        })
    }

    fn reader(&self) -> &FlacReader<'static> {
        self.reader.as_deref().expect("a stream is open between calls")
    }

    fn reader_mut(&mut self) -> &mut FlacReader<'static> {
        self.reader
            .as_deref_mut()
            .expect("a stream is open between calls")
    }

    /// Opens the stream that follows the current one, if there is one.
    fn open_next(&mut self) -> Result<bool, Error> {
        let start = self.next_start.load(Ordering::Relaxed);
        if start == u64::MAX {
            return Ok(false);
        }
        let Some(reader) = self.reader.take() else {
            return Ok(false);
        };
        let mut stream = reader.into_inner();
        stream.seek(SeekFrom::Start(start))?;
        self.reader = Some(Box::new(FlacReader::try_new(stream, FormatOptions::default())?));
        Ok(true)
    }
}

impl FormatReader for FlacStreams {
    fn format_info(&self) -> &FormatInfo {
        self.reader().format_info()
    }

    fn media_info(&self) -> &MediaInfo {
        self.reader().media_info()
    }

    fn metadata(&mut self) -> Metadata<'_> {
        self.reader_mut().metadata()
    }

    fn seek(&mut self, mode: SeekMode, to: SeekTo) -> Result<SeekedTo, Error> {
        self.reader_mut().seek(mode, to)
    }

    fn tracks(&self) -> &[Track] {
        self.reader().tracks()
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, Error> {
        let read = self.reader_mut().next_packet();
        let is_end = match &read {
            Ok(packet) => packet.is_none(),
            Err(Error::IoError(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
            Err(_) => false,
        };
        if is_end && self.open_next()? {
            return Err(Error::ResetRequired);
        }
        read
    }

    fn into_inner<'s>(self: Box<Self>) -> MediaSourceStream<'s>
    where
        Self: 's,
    {
        self.reader.expect("a stream is open between calls").into_inner()
    }
}

/// The bytes of a file from the start of a stream to the start of the next. A seek to the start of another
/// stream makes that the current one.
struct OneStream {
    inner: Box<dyn MediaSource>,
    position: u64,
    start: u64,
    next_start: Arc<AtomicU64>,
}

impl Read for OneStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.next_start.load(Ordering::Relaxed);
        let left = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let max_bytes = buffer.len().min(left);
        let all = self.inner.read(&mut buffer[..max_bytes])?;
        let mut read = all;
        let found = buffer[..read]
            .windows(MARKER.len())
            .enumerate()
            .find(|(place, bytes)| *bytes == MARKER && self.position + *place as u64 != self.start);
        if let Some((place, _)) = found {
            self.next_start
                .store(self.position + place as u64, Ordering::Relaxed);
            read = place;
        } else {
            // What may be the beginning of a marker is returned together with the bytes after it.
            let partial = (1..MARKER.len())
                .rev()
                .find(|count| buffer[..read].ends_with(&MARKER[..*count]));
            read -= partial.filter(|count| *count < read).unwrap_or(0);
        }
        self.position += read as u64;
        if read < all {
            self.inner.seek(SeekFrom::Start(self.position))?;
        }
        Ok(read)
    }
}

impl Seek for OneStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if to == SeekFrom::Start(self.next_start.load(Ordering::Relaxed)) {
            self.start = self.next_start.swap(u64::MAX, Ordering::Relaxed);
        }
        self.position = self.inner.seek(to)?;
        Ok(self.position)
    }
}

impl MediaSource for OneStream {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.inner.byte_len()
    }
}
