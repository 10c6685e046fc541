//! Tells whether AAC has spectral band replication, by which HE-AAC codes its upper half and its second channel: our
//! decoder would leave both out without a word.

use std::collections::VecDeque;

use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::packet::Packet;

/// Packets looked at. Every packet of HE-AAC carries its replication.
const PACKETS: usize = 16;

/// The longest packet of two channels, 6,144 bits each, and some more.
const MAX_PACKET_BYTES: usize = 2_048;

/// Element kinds of ISO 14496-3, table 4.85.
const DATA_ELEMENT: u32 = 4;
const FILL_ELEMENT: u32 = 6;
const END: u32 = 7;

/// Kinds of fill elements that carry replication, without and with a checksum.
const REPLICATION: [u32; 2] = [13, 14];

/// Whether a decoder's configuration announces replication behind that of the plain codec, for old decoders to overlook
/// (ISO 14496-3, 1.6.6.2). Where it comes first instead, our decoder refuses it itself.
pub(super) fn is_announced(config: &[u8]) -> bool {
    const SYNC: u32 = 0x2b7;
    const TYPES: [u32; 2] = [5, 29];
    let mut bits = Bits::new(config);
    let found = || -> Option<bool> {
        bits.object_type()?;
        bits.rate()?;
        // Channels, and three flags of the plain codec.
        bits.take(4 + 3)?;
        let is_announced = bits.take(11)? == SYNC && TYPES.contains(&bits.object_type()?);
        Some(is_announced && bits.take(1)? == 1)
    }();
    found.unwrap_or(false)
}

/// Whether most of the first packets carry replication that nothing announces. `decoder` is of the plain codec, and of
/// no use afterwards.
pub(super) fn is_in(packets: &VecDeque<Packet>, decoder: &mut dyn AudioDecoder) -> bool {
    let looked_at = packets.len().min(PACKETS);
    let carrying = packets
        .iter()
        .take(PACKETS)
        .filter(|packet| carries_replication(packet, decoder))
        .count();
    carrying * 2 > looked_at
}

/// Whether [`is_in`] looks at no more packets than these.
pub(super) fn is_enough(packets: &VecDeque<Packet>) -> bool {
    let bytes: usize = packets.iter().map(|packet| packet.data.len()).sum();
    packets.len() >= PACKETS || bytes > PACKETS * MAX_PACKET_BYTES
}

/// Whether a packet ends with fill elements one of which carries replication. Where its elements begin only a decoder of
/// them all can tell: so wherever the rest of the packet reads as such elements, the packet is decoded up to there.
fn carries_replication(packet: &Packet, decoder: &mut dyn AudioDecoder) -> bool {
    let bits = packet.data.len() * 8;
    if packet.data.len() > MAX_PACKET_BYTES {
        return false;
    }
    (0..bits)
        .filter(|place| is_tail(&packet.data, *place))
        .any(|place| {
            let shortened = Packet::new(
                packet.track_id,
                packet.pts,
                packet.dur,
                up_to(&packet.data, place),
            );
            decoder
                .decode(&shortened)
                .is_ok_and(|decoded| decoded.frames() > 0)
        })
}

/// Whether fill and data elements up to the end begin at a bit, the first with replication.
fn is_tail(packet: &[u8], place: usize) -> bool {
    let mut bits = Bits { bytes: packet, place };
    let carries = || -> Option<bool> {
        if bits.take(3)? != FILL_ELEMENT {
            return Some(false);
        }
        let end = bits.end_of_fill()?;
        if end == bits.place || !REPLICATION.contains(&bits.take(4)?) {
            return Some(false);
        }
        bits.place = end;
        let last = bits.next_kind()?;
        Some(last == END && (packet.len() * 8).checked_sub(bits.place)? < 8)
    }();
    carries.unwrap_or(false)
}

/// Whether a packet has an element with audio. For one without, our decoder gives the packet before it once more.
pub(super) fn has_audio(packet: &[u8]) -> bool {
    Bits::new(packet).next_kind().is_some_and(|kind| kind != END)
}

/// The bits in front of a place, and the end of a packet behind them.
fn up_to(packet: &[u8], place: usize) -> Vec<u8> {
    let mut bytes = packet[..place / 8].to_vec();
    let kept = place % 8;
    let first = packet.get(place / 8).map_or(0, |byte| byte & !(0xff_u8 >> kept));
    let [high, low] = (u16::from(first) << 8 | 0xe000 >> kept).to_be_bytes();
    bytes.push(high);
    if kept > 5 {
        bytes.push(low);
    }
    bytes
}

/// Bits from the highest to the lowest.
struct Bits<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, place: 0 }
    }

    fn take(&mut self, count: usize) -> Option<u32> {
        (0..count).try_fold(0, |value, _| {
            let byte = self.bytes.get(self.place / 8)?;
            let bit = byte >> (7 - self.place % 8) & 1;
            self.place += 1;
            Some(value << 1 | u32::from(bit))
        })
    }

    /// The first kind of element that is neither fill nor data; the bits behind it are next.
    fn next_kind(&mut self) -> Option<u32> {
        loop {
            self.place = match self.take(3)? {
                FILL_ELEMENT => self.end_of_fill()?,
                DATA_ELEMENT => self.end_of_data()?,
                kind => return Some(kind),
            };
        }
    }

    fn end_of_fill(&mut self) -> Option<usize> {
        let mut count = self.take(4)? as usize;
        if count == 15 {
            count = (count + self.take(8)? as usize).saturating_sub(1);
        }
        Some(self.place + count * 8)
    }

    fn end_of_data(&mut self) -> Option<usize> {
        self.take(4)?;
        let is_aligned = self.take(1)? == 1;
        let mut count = self.take(8)? as usize;
        if count == 255 {
            count += self.take(8)? as usize;
        }
        let start = if is_aligned {
            self.place.next_multiple_of(8)
        } else {
            self.place
        };
        Some(start + count * 8)
    }

    fn object_type(&mut self) -> Option<u32> {
        const ESCAPE: u32 = 31;
        Some(match self.take(5)? {
            ESCAPE => 32 + self.take(6)?,
            kind => kind,
        })
    }

    fn rate(&mut self) -> Option<()> {
        const ESCAPE: u32 = 15;
        if self.take(4)? == ESCAPE {
            self.take(24)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_announces_replication_behind_the_plain_codec_is_recognized() {
        // 22.05 kHz stereo, then 0x2b7, type 5, present, 44.1 kHz; the same with the flag off; the plain codec alone.
        assert!(is_announced(&[0x13, 0x90, 0x56, 0xe5, 0xa0]));
        assert!(!is_announced(&[0x13, 0x90, 0x56, 0xe5, 0x00]));
        assert!(!is_announced(&[0x12, 0x10]));
        assert!(!is_announced(&[]));
    }

    #[test]
    fn a_packet_of_an_end_or_of_filling_alone_has_no_audio() {
        // An end; two bytes of filling and an end; a single channel; a pair of channels behind a byte of filling.
        assert!(!has_audio(&[0xe0, 0]));
        assert!(!has_audio(&[0b1100_0100, 0, 0b0000_0001, 0b1100_0000]));
        assert!(has_audio(&[0x01, 0x40]));
        assert!(has_audio(&[0b1100_0010, 0, 0b0100_0000, 0]));
        assert!(!has_audio(&[]));
    }

    #[test]
    fn a_packet_is_cut_at_a_bit_and_ended() {
        assert_eq!(up_to(&[0xff, 0xff], 8), vec![0xff, 0xe0]);
        assert_eq!(up_to(&[0x00, 0x00], 3), vec![0b0001_1100]);
        assert_eq!(up_to(&[0x00, 0x00], 7), vec![0b0000_0001, 0b1100_0000]);
    }
}
