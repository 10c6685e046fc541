//! Reads numbers and byte ranges, for the parsers of headers.

use std::io::{self, Read, Seek, SeekFrom};

/// The big-endian number at `offset`, if all of its bytes are present.
pub(super) fn u32_be(bytes: &[u8], offset: usize) -> Option<u32> {
    word(bytes, offset).map(u32::from_be_bytes)
}

/// The big-endian number at `offset`, if all of its bytes are present.
pub(super) fn u64_be(bytes: &[u8], offset: usize) -> Option<u64> {
    word(bytes, offset).map(u64::from_be_bytes)
}

/// The little-endian number at `offset`, if all of its bytes are present.
pub(super) fn u32_le(bytes: &[u8], offset: usize) -> Option<u32> {
    word(bytes, offset).map(u32::from_le_bytes)
}

fn word<const BYTES: usize>(bytes: &[u8], offset: usize) -> Option<[u8; BYTES]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// The number that all of the bytes form in big-endian order, of at most eight.
pub(super) fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// At most `max_bytes` bytes starting at `from`; fewer at the end of the input.
pub(super) fn read_at(input: &mut (impl Read + Seek), from: u64, max_bytes: u64) -> io::Result<Vec<u8>> {
    input.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    input.by_ref().take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}
