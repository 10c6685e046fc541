//! Checks that bytes have the shape of a message before they are decoded.
//!
//! The decoder makes room for as many items as a message says it has, before it looks whether they are there. A few bytes
//! of nonsense would so ask for hundreds of gigabytes, and a process that is refused memory ends. Here every count is
//! walked through first: what passes has its items, so that decoding it takes memory in proportion to its bytes.

/// A part of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// So many bytes.
    Fixed(usize),
    /// A text behind its length in two bytes; -1 is none.
    Text,
    /// Bytes behind their length in four bytes; -1 is none.
    Bytes,
    /// Items behind their count in four bytes; -1 is none.
    List(&'static [Part]),
    /// A text or bytes behind their length and 1, as a varint; 0 is none.
    Compact,
    /// Items behind their count and 1, as a varint; 0 is none.
    CompactList(&'static [Part]),
    /// Fields of later versions, each with a number and a length.
    Tags,
}

/// Whether `bytes` are these parts and nothing else.
pub(super) fn fits(parts: &[Part], bytes: &[u8]) -> bool {
    let mut rest = Rest(bytes);
    rest.walk(parts).is_some() && rest.0.is_empty()
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn walk(&mut self, parts: &[Part]) -> Option<()> {
        for part in parts {
            match *part {
                Part::Fixed(count) => self.skip(count)?,
                Part::Text => {
                    let length = i16::from_be_bytes(self.take()?);
                    self.skip_unless_none(i32::from(length))?;
                }
                Part::Bytes => {
                    let length = i32::from_be_bytes(self.take()?);
                    self.skip_unless_none(length)?;
                }
                Part::List(item) => {
                    let count = i32::from_be_bytes(self.take()?);
                    for _ in 0..count {
                        self.walk(item)?;
                    }
                    (count >= -1).then_some(())?;
                }
                Part::Compact => {
                    let length = self.varint()?;
                    self.skip(length.saturating_sub(1))?;
                }
                Part::CompactList(item) => {
                    let count = self.varint()?;
                    // Each item has at least one byte, so that this ends where the bytes do.
                    for _ in 1..count {
                        self.walk(item)?;
                    }
                }
                Part::Tags => {
                    for _ in 0..self.varint()? {
                        self.varint()?;
                        let length = self.varint()?;
                        self.skip(length)?;
                    }
                }
            }
        }
        Some(())
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    fn skip_unless_none(&mut self, length: i32) -> Option<()> {
        match length {
            -1 => Some(()),
            length => self.skip(usize::try_from(length).ok()?),
        }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Seven bits in each byte, the lowest first; 32 bits at most.
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

    const NAMES: &[Part] = &[Part::Fixed(2), Part::List(&[Part::Text]), Part::Bytes];
    const COMPACT: &[Part] = &[Part::CompactList(&[Part::Compact, Part::Tags]), Part::Tags];

    #[test]
    fn what_has_all_its_parts_fits() {
        assert!(fits(NAMES, &[0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 1, 9]));
        assert!(fits(
            NAMES,
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        ));
        assert!(fits(COMPACT, &[3, 2, b'a', 0, 0, 0, 1, 7, 1, 0xaa]));
        assert!(fits(COMPACT, &[0, 0]));
    }

    #[test]
    fn what_ends_early_goes_on_or_promises_too_much_does_not_fit() {
        let whole = [0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 1, 9];
        for end in 0..whole.len() {
            assert!(!fits(NAMES, &whole[..end]), "{end}");
        }
        assert!(!fits(COMPACT, &[0, 0, 0]));
        // Four billion items, and none of them there.
        assert!(!fits(COMPACT, &[0xff, 0xff, 0xff, 0xff, 0x0f]));
        assert!(!fits(COMPACT, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]));
        assert!(!fits(NAMES, &[0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0]));
        assert!(!fits(NAMES, &[0, 0, 0xff, 0xff, 0xff, 0xfe]));
    }
}
