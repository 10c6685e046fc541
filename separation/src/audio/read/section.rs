//! A byte range of a file, presented to readers as a complete file.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

/// The bytes of a file up to an end. The end may be after the end of the file, for one that was cut off;
/// reading there returns nothing.
pub(super) struct Section {
    inner: Box<dyn MediaSource>,
    end: u64,
    position: u64,
    is_seekable: bool,
}

impl Section {
    pub(super) fn new(mut inner: Box<dyn MediaSource>, end: u64) -> io::Result<Self> {
        inner.rewind()?;
        Ok(Self {
            inner,
            end,
            position: 0,
            is_seekable: true,
        })
    }

    /// Makes the input unseekable if its end is missing, so that no reader seeks to an index there.
    pub(super) fn unseekable_if_truncated(mut self) -> io::Result<Self> {
        self.is_seekable = self.inner.seek(SeekFrom::End(0))? >= self.end;
        self.inner.rewind()?;
        Ok(self)
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let max_bytes = buffer.len().min(left);
        let read = self.inner.read(&mut buffer[..max_bytes])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        self.position = self.inner.seek(SeekFrom::Start(position))?;
        Ok(position)
    }
}

impl MediaSource for Section {
    fn is_seekable(&self) -> bool {
        self.is_seekable
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.end)
    }
}
