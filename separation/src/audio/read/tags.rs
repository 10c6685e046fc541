//! Finds tags around audio without a container: ID3v1, ID3v2, APEv2 and Lyrics3. Their content is never read.

use std::io::{self, Read, Seek, SeekFrom};

use super::bytes::{read_at, u32_le};

/// Bytes at the start of a tag that identify it.
pub(super) const HEAD_BYTES: u64 = 32;

/// Tags skipped in a row at the end of a file; taggers write at most three.
const MAX_TAGS: usize = 8;

const ID3V1_BYTES: u64 = 128;
const ID3V1_EXTENDED_BYTES: u64 = 227;
const APE_HEAD_BYTES: u64 = 32;

/// The longest Lyrics3 v1 tag, by its specification.
const MAX_LYRICS_BYTES: u64 = 5_100 + 20;

/// Length in bytes of the tag that `head` begins with; it may exceed the file.
pub(super) fn length_at(head: &[u8]) -> Option<u64> {
    if head.starts_with(b"TAG+") {
        return Some(ID3V1_EXTENDED_BYTES);
    }
    if head.starts_with(b"TAG") {
        return Some(ID3V1_BYTES);
    }
    if head.starts_with(b"APETAGEX") {
        return ape_length(head);
    }
    id3v2_length(head)
}

/// Four bytes of seven bits: at most 256 MiB.
fn id3v2_length(head: &[u8]) -> Option<u64> {
    let &[b'I', b'D', b'3', version, _, flags, a, b, c, d, ..] = head else {
        return None;
    };
    if version == 0xff {
        return None;
    }
    let size = [a, b, c, d]
        .iter()
        .fold(0_u64, |size, byte| size << 7 | u64::from(byte & 0x7f));
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    Some(10 + size + footer)
}

/// The size includes the items and the footer, but not a header before them.
fn ape_length(head: &[u8]) -> Option<u64> {
    const IS_HEADER: u32 = 1 << 29;
    let size = u64::from(u32_le(head, 12)?);
    let is_header = u32_le(head, 20)? & IS_HEADER != 0;
    Some(APE_HEAD_BYTES + if is_header { size } else { 0 })
}

/// Where the audio of a file ends: before all trailing tags.
pub(super) fn end_of_audio(input: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut end = input.seek(SeekFrom::End(0))?;
    for _ in 0..MAX_TAGS {
        let Some(bytes) = length_before(input, end)? else {
            break;
        };
        end = end.saturating_sub(bytes);
    }
    Ok(end)
}

/// Length in bytes of the tag that ends at `end`.
fn length_before(input: &mut (impl Read + Seek), end: u64) -> io::Result<Option<u64>> {
    let mut bytes_before = |count: u64| {
        let count = count.min(end);
        read_at(input, end - count, count)
    };
    for (bytes, magic) in [
        (ID3V1_BYTES, b"TAG".as_slice()),
        (ID3V1_EXTENDED_BYTES, b"TAG+".as_slice()),
    ] {
        if end >= bytes && bytes_before(bytes)?.starts_with(magic) {
            return Ok(Some(bytes));
        }
    }
    let foot = bytes_before(APE_HEAD_BYTES)?;
    if foot.starts_with(b"APETAGEX") {
        const HAS_HEADER: u32 = 1 << 31;
        let (Some(size), Some(flags)) = (u32_le(&foot, 12), u32_le(&foot, 20)) else {
            return Ok(None);
        };
        let head = if flags & HAS_HEADER != 0 {
            APE_HEAD_BYTES
        } else {
            0
        };
        return Ok(Some(u64::from(size).max(APE_HEAD_BYTES) + head));
    }
    let foot = foot.get(foot.len().saturating_sub(15)..).unwrap_or_default();
    if let Some(digits) = foot.strip_suffix(b"LYRICS200") {
        let size = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        return Ok(size.map(|size| size + 15));
    }
    if foot.ends_with(b"LYRICSEND") {
        let tail = bytes_before(MAX_LYRICS_BYTES)?;
        let begin = tail.windows(11).rposition(|word| word == b"LYRICSBEGIN");
        return Ok(begin.map(|begin| (tail.len() - begin) as u64));
    }
    // The footer of ID3v2.4 repeats its header with a different identifier.
    let foot = foot.get(foot.len().saturating_sub(10)..).unwrap_or_default();
    if let Some(rest) = foot.strip_prefix(b"3DI") {
        return Ok(id3v2_length(&[b"ID3", rest].concat()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn ape(items: &[u8], flags: u32) -> Vec<u8> {
        let mut part = b"APETAGEX".to_vec();
        part.extend_from_slice(&2_000_u32.to_le_bytes());
        part.extend_from_slice(&(items.len() as u32 + 32).to_le_bytes());
        part.extend_from_slice(&1_u32.to_le_bytes());
        part.extend_from_slice(&flags.to_le_bytes());
        part.extend_from_slice(&[0; 8]);
        part
    }

    #[test]
    fn every_tag_at_the_end_is_found_and_so_is_the_one_before_it() {
        let items = [7; 1_000];
        let ape = [ape(&items, 0xa000_0000), items.to_vec(), ape(&items, 0x8000_0000)].concat();
        let id3v1 = [b"TAG".as_slice(), &[0; 125]].concat();
        let lyrics_2 = [b"LYRICSBEGIN".as_slice(), &[b'x'; 25], b"000036LYRICS200"].concat();
        let lyrics_1 = [b"LYRICSBEGIN".as_slice(), &[b'x'; 300], b"LYRICSEND"].concat();
        let id3v2 = [
            b"ID3\x04\0\x10\0\0\0\x05hello".as_slice(),
            b"3DI\x04\0\x10\0\0\0\x05",
        ]
        .concat();
        let audio = vec![1_u8; 5_000];
        for tags in [
            vec![],
            vec![id3v1.clone()],
            vec![ape.clone()],
            vec![ape.clone(), id3v1.clone()],
            vec![lyrics_2, id3v1.clone()],
            vec![lyrics_1, id3v1.clone()],
            vec![id3v2.clone()],
            vec![id3v2, ape.clone(), id3v1],
        ] {
            let file = [audio.clone(), tags.concat()].concat();
            assert_eq!(
                end_of_audio(&mut Cursor::new(file)).unwrap(),
                5_000,
                "{}",
                tags.len()
            );
        }
        assert_eq!(length_at(&ape), Some(ape.len() as u64));
    }

    #[test]
    fn a_tag_that_claims_more_than_the_file_has_leaves_nothing() {
        let mut foot = ape(&[], 0);
        foot[12..16].fill(0xff);
        assert_eq!(end_of_audio(&mut Cursor::new(foot)).unwrap(), 0);
    }
}
