//! Checks that bytes have the shape of a message before they are decoded.
//!
//! The decoder allocates for as many items as a message declares before it checks that they are present. A few
//! malformed bytes could request hundreds of gigabytes, and a failed allocation aborts the process. Here every count is
//! checked first: a message that passes has all its items, and their decoded size is known.

/// A part of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// A fixed number of bytes.
    Fixed(usize),
    /// A string after its length in two bytes; -1 is null.
    Text,
    /// Bytes after their length in four bytes; -1 is null.
    Bytes,
    /// Items after their count in four bytes; -1 is null.
    List(&'static [Part]),
    /// Tagged fields of later versions, each with a number and a length; only in flexible versions.
    Tags,
    /// Parts that messages of a version and later have.
    Since(i16, &'static [Part]),
    /// Parts that only messages before a version have.
    Before(i16, &'static [Part]),
}

/// How a message is encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// The version of the message.
    pub(crate) version: i16,
    /// Whether lengths and counts are encoded plus 1 as varints, with 0 for null (KIP-482).
    pub(crate) is_flexible: bool,
}

/// Decoded size of a string, even if empty; of a list or a map of tags, even if empty; of a list item with several
/// parts, in addition to its parts; of a tag. From the decoder's types, rounded up.
const TEXT_BYTES: usize = 32;
const LIST_BYTES: usize = 24;
const ITEM_BYTES: usize = 32;
const TAG_BYTES: usize = 64;

/// The decoded size of `bytes`; `None` unless they consist of exactly these parts.
pub(crate) fn decoded_bytes(parts: &[Part], format: Format, bytes: &[u8]) -> Option<usize> {
    let mut rest = Cursor {
        bytes,
        format,
        decoded: 0,
    };
    rest.walk(parts)?;
    rest.bytes.is_empty().then_some(rest.decoded)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    format: Format,
    decoded: usize,
}

impl Cursor<'_> {
    fn walk(&mut self, parts: &[Part]) -> Option<()> {
        for part in parts {
            match *part {
                Part::Fixed(count) => {
                    self.decoded += count;
                    self.skip(count)?;
                }
                Part::Text => {
                    self.decoded += TEXT_BYTES;
                    let length = self.length(|cursor| Some(i16::from_be_bytes(cursor.take()?).into()))?;
                    self.skip(length)?;
                }
                Part::Bytes => {
                    self.decoded += TEXT_BYTES;
                    let length = self.length(|cursor| Some(i32::from_be_bytes(cursor.take()?)))?;
                    self.skip(length)?;
                }
                Part::List(item) => {
                    let count = self.length(|cursor| Some(i32::from_be_bytes(cursor.take()?)))?;
                    self.decoded += LIST_BYTES;
                    // Each item has at least one byte, so this ends with the bytes.
                    for _ in 0..count {
                        self.item(item)?;
                    }
                }
                Part::Tags => {
                    self.decoded += LIST_BYTES;
                    let count = if self.format.is_flexible {
                        self.varint()?
                    } else {
                        0
                    };
                    for _ in 0..count {
                        self.decoded += TAG_BYTES;
                        self.varint()?;
                        let length = self.varint()?;
                        self.skip(length)?;
                    }
                }
                Part::Since(version, parts) if self.format.version >= version => self.walk(parts)?,
                Part::Before(version, parts) if self.format.version < version => self.walk(parts)?,
                Part::Since(..) | Part::Before(..) => {}
            }
        }
        Some(())
    }

    /// A length or count, 0 for null; `classic` reads it in versions that are not flexible.
    fn length(&mut self, classic: impl FnOnce(&mut Self) -> Option<i32>) -> Option<usize> {
        if self.format.is_flexible {
            return Some(self.varint()?.saturating_sub(1));
        }
        match classic(self)? {
            -1 => Some(0),
            length => usize::try_from(length).ok(),
        }
    }

    fn item(&mut self, parts: &[Part]) -> Option<()> {
        if parts.len() > 1 {
            self.decoded += ITEM_BYTES;
        }
        self.walk(parts)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes = self.bytes.get(count..)?;
        Some(())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }

    /// Seven bits per byte, lowest first; at most 32 bits.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(u32::try_from(value).ok()?).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSIC: Format = Format {
        version: 0,
        is_flexible: false,
    };
    const FLEXIBLE: Format = Format {
        version: 1,
        is_flexible: true,
    };

    fn fits(parts: &[Part], bytes: &[u8]) -> bool {
        decoded_bytes(parts, CLASSIC, bytes).is_some()
    }

    fn fits_compact(bytes: &[u8]) -> bool {
        decoded_bytes(COMPACT, FLEXIBLE, bytes).is_some()
    }

    const NAMES: &[Part] = &[Part::Fixed(2), Part::List(&[Part::Text]), Part::Bytes];
    const COMPACT: &[Part] = &[Part::List(&[Part::Text, Part::Tags]), Part::Tags];

    #[test]
    fn a_complete_message_fits() {
        assert!(fits(NAMES, &[0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 1, 9]));
        assert!(fits(
            NAMES,
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        ));
        assert!(fits_compact(&[3, 2, b'a', 0, 0, 0, 1, 7, 1, 0xaa]));
        assert!(fits_compact(&[0, 0]));
    }

    #[test]
    fn a_message_that_is_truncated_or_too_long_or_lacks_declared_items_does_not_fit() {
        let message = [0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 1, 9];
        for end in 0..message.len() {
            assert!(!fits(NAMES, &message[..end]), "{end}");
        }
        assert!(!fits_compact(&[0, 0, 0]));
        // Four billion items declared, none present.
        assert!(!fits_compact(&[0xff, 0xff, 0xff, 0xff, 0x0f]));
        assert!(!fits_compact(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]));
        assert!(!fits(NAMES, &[0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0]));
        assert!(!fits(NAMES, &[0, 0, 0xff, 0xff, 0xff, 0xfe]));
    }

    #[test]
    fn the_decoded_size_counts_items_and_not_only_bytes() {
        const NUMBERS: &[Part] = &[Part::List(&[Part::Fixed(4)])];
        const TEXTS: &[Part] = &[Part::List(&[Part::Text])];
        let of = |items: u32, item: &[u8]| {
            let each = std::iter::repeat_n(item, items as usize).flatten().copied();
            items.to_be_bytes().into_iter().chain(each).collect::<Vec<u8>>()
        };
        assert_eq!(
            decoded_bytes(NUMBERS, CLASSIC, &of(1_000, &[0; 4])),
            Some(24 + 4_000)
        );
        // Two bytes each, and sixteen times as much when decoded.
        assert_eq!(
            decoded_bytes(TEXTS, CLASSIC, &of(1_000, &[0; 2])),
            Some(24 + 32_000)
        );
        let tags: Vec<u8> = [[10].as_slice(), &[1, 0].repeat(10)].concat();
        assert_eq!(decoded_bytes(&[Part::Tags], FLEXIBLE, &tags), Some(24 + 640));
    }

    #[test]
    fn parts_of_other_versions_are_absent() {
        const PARTS: &[Part] = &[
            Part::Before(1, &[Part::Fixed(4)]),
            Part::Since(1, &[Part::Fixed(2)]),
            Part::Tags,
        ];
        assert_eq!(decoded_bytes(PARTS, CLASSIC, &[0; 4]), Some(4 + 24));
        assert_eq!(decoded_bytes(PARTS, FLEXIBLE, &[0; 3]), Some(2 + 24));
        assert_eq!(decoded_bytes(PARTS, FLEXIBLE, &[0; 5]), None);
    }
}
