//! Core Audio files written to pipes: their data chunk has the length -1, which means "up to the end of the
//! file".
//!
//! Also refuses files whose description of the samples contradicts itself, which no reader checks.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::errors::{Error, Result};
use symphonia::core::io::MediaSource;

use super::bytes::{read_at, u32_be};
use crate::audio::error::UNCLEAR_WIDTH;

/// Chunks inspected; real files have a handful.
const MAX_CHUNKS: usize = 1_000;

/// Bytes of a chunk header: a name of four and a length of eight.
const HEADER_BYTES: u64 = 12;

/// The file that begins at `offset` of `input`, with the length of its data filled in.
pub(super) fn with_length(mut input: Box<dyn MediaSource>, offset: u64) -> Result<Box<dyn MediaSource>> {
    let end = input.seek(SeekFrom::End(0))?;
    let mut position = offset + 8;
    for _ in 0..MAX_CHUNKS {
        let head = read_at(&mut input, position, HEADER_BYTES + 32)?;
        let Some((name, length)) = chunk(&head) else {
            break;
        };
        let content = position + HEADER_BYTES;
        match (name, u64::try_from(length)) {
            (b"desc", Ok(_)) => check_description(&head[12..])?,
            (b"data", Err(_)) if length == -1 => {
                let length = end.saturating_sub(content);
                return Ok(Box::new(Overlay {
                    inner: input,
                    from: position + 4,
                    bytes: length.to_be_bytes(),
                    position: content,
                }));
            }
            _ => {}
        }
        match u64::try_from(length)
            .ok()
            .and_then(|length| content.checked_add(length))
        {
            Some(next) if next <= end => position = next,
            _ => break,
        }
    }
    Ok(input)
}

fn chunk(head: &[u8]) -> Option<(&[u8; 4], i64)> {
    let (name, rest) = head.split_first_chunk::<4>()?;
    let length = i64::from_be_bytes(*rest.first_chunk()?);
    Some((name, length))
}

/// Linear samples must fill their packets: in a larger packet, the position of the sample is not defined.
fn check_description(content: &[u8]) -> Result<()> {
    let number = |offset| u64::from(u32_be(content, offset).unwrap_or(0));
    let (packet, frames, channels, bits) = (number(16), number(20), number(24), number(28));
    let is_linear = content.get(8..12) == Some(b"lpcm");
    if is_linear && packet > 0 && packet != bits.div_ceil(8) * channels * frames {
        return Err(Error::Unsupported(UNCLEAR_WIDTH));
    }
    Ok(())
}

/// A file with eight of its bytes replaced.
struct Overlay {
    inner: Box<dyn MediaSource>,
    from: u64,
    bytes: [u8; 8],
    position: u64,
}

impl Read for Overlay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        for (byte, position) in self.bytes.iter().zip(self.from..) {
            let offset = position
                .checked_sub(self.position)
                .and_then(|offset| usize::try_from(offset).ok());
            if let Some(read) = offset.and_then(|offset| buffer[..got].get_mut(offset)) {
                *read = *byte;
            }
        }
        self.position += got as u64;
        Ok(got)
    }
}

impl Seek for Overlay {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.inner.seek(to)?;
        Ok(self.position)
    }
}

impl MediaSource for Overlay {
    fn is_seekable(&self) -> bool {
        self.inner.is_seekable()
    }

    fn byte_len(&self) -> Option<u64> {
        self.inner.byte_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn file(packet_bytes: u32, bits: u32, data: &[u8]) -> Vec<u8> {
        let mut file = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
        file.extend_from_slice(&44_100.0_f64.to_be_bytes());
        file.extend_from_slice(b"lpcm\0\0\0\x02");
        for number in [packet_bytes, 1, 2, bits] {
            file.extend_from_slice(&number.to_be_bytes());
        }
        file.extend_from_slice(b"data");
        file.extend_from_slice(&(-1_i64).to_be_bytes());
        file.extend_from_slice(data);
        file
    }

    #[test]
    fn a_length_of_minus_one_becomes_the_length_to_the_end_of_the_file() {
        let bytes = file(4, 16, &[7; 100]);
        let mut input = with_length(Box::new(Cursor::new(bytes.clone())), 0).unwrap();
        input.rewind().unwrap();
        let mut content = Vec::new();
        input.read_to_end(&mut content).unwrap();
        let position = bytes.len() - 108;
        assert_eq!(content[position..position + 8], 100_u64.to_be_bytes());
        assert_eq!(
            (&content[..position], &content[position + 8..]),
            (&bytes[..position], &bytes[position + 8..])
        );
        input.seek(SeekFrom::Start(position as u64 + 7)).unwrap();
        let mut byte = [0];
        input.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [100]);
    }

    #[test]
    fn samples_in_larger_spaces_are_refused() {
        let refused = with_length(Box::new(Cursor::new(file(8, 24, &[0; 80]))), 0).err();
        assert!(matches!(refused, Some(Error::Unsupported(UNCLEAR_WIDTH))));
        assert!(with_length(Box::new(Cursor::new(file(6, 24, &[0; 60]))), 0).is_ok());
        assert!(with_length(Box::new(Cursor::new(file(6, 20, &[0; 60]))), 0).is_ok());
    }
}
