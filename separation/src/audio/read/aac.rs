//! Detects spectral band replication (SBR) in AAC. HE-AAC codes its upper band and its second channel with
//! it, and our decoder would silently drop both.

use std::collections::VecDeque;

use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::packet::Packet;

/// Packets inspected. Every HE-AAC packet carries SBR data.
const PACKETS: usize = 16;

/// The longest packet of two channels is 6,144 bits per channel; the rest is margin.
const MAX_PACKET_BYTES: usize = 2_048;

/// Element kinds of ISO 14496-3, table 4.85.
const DATA_ELEMENT: u32 = 4;
const FILL_ELEMENT: u32 = 6;
const END: u32 = 7;

/// Fill element types that carry SBR, without and with a checksum.
const REPLICATION: [u32; 2] = [13, 14];

/// Whether a decoder configuration announces SBR after that of plain AAC, the form that old decoders skip
/// (ISO 14496-3, 1.6.6.2). Our decoder itself refuses the other form, where SBR comes first.
pub(super) fn is_announced(config: &[u8]) -> bool {
    const SYNC: u32 = 0x2b7;
    const TYPES: [u32; 2] = [5, 29];
    let mut bits = Bits::new(config);
    let found = || -> Option<bool> {
        bits.object_type()?;
        bits.rate()?;
        // The channels and three flags of plain AAC.
        bits.take(4 + 3)?;
        let is_announced = bits.take(11)? == SYNC && TYPES.contains(&bits.object_type()?);
        Some(is_announced && bits.take(1)? == 1)
    }();
    found.unwrap_or(false)
}

/// Whether most of the first packets carry SBR that the configuration does not announce. `decoder` must be
/// set up for plain AAC and must not be used afterwards.
pub(super) fn is_present(packets: &VecDeque<Packet>, decoder: &mut dyn AudioDecoder) -> bool {
    let inspected = packets.len().min(PACKETS);
    let carrying = packets
        .iter()
        .take(PACKETS)
        .filter(|packet| carries_replication(packet, decoder))
        .count();
    carrying * 2 > inspected
}

/// Whether [`is_present`] needs no more packets than these.
pub(super) fn is_enough(packets: &VecDeque<Packet>) -> bool {
    let bytes: usize = packets.iter().map(|packet| packet.data.len()).sum();
    packets.len() >= PACKETS || bytes > PACKETS * MAX_PACKET_BYTES
}

/// Whether a packet ends with fill elements one of which carries SBR. Only a decoder that parses all elements
/// knows where the fill elements begin, so at each place from which the rest parses as fill elements, the
/// packet is decoded up to there.
fn carries_replication(packet: &Packet, decoder: &mut dyn AudioDecoder) -> bool {
    let bits = packet.data.len() * 8;
    if packet.data.len() > MAX_PACKET_BYTES {
        return false;
    }
    (0..bits).filter(|bit| is_tail(&packet.data, *bit)).any(|bit| {
        let shortened = Packet::new(
            packet.track_id,
            packet.pts,
            packet.dur,
            truncated_at(&packet.data, bit),
        );
        decoder
            .decode(&shortened)
            .is_ok_and(|decoded| decoded.frames() > 0)
    })
}

/// Whether only fill and data elements, the first with SBR, follow from a bit to the end of the packet.
fn is_tail(packet: &[u8], bit: usize) -> bool {
    let mut bits = Bits { bytes: packet, bit };
    let carries = || -> Option<bool> {
        if bits.take(3)? != FILL_ELEMENT {
            return Some(false);
        }
        let end = bits.end_of_fill()?;
        if end == bits.bit || !REPLICATION.contains(&bits.take(4)?) {
            return Some(false);
        }
        bits.bit = end;
        let last = bits.next_kind()?;
        Some(last == END && (packet.len() * 8).checked_sub(bits.bit)? < 8)
    }();
    carries.unwrap_or(false)
}

/// Whether a packet has an audio element. For a packet without one, our decoder repeats the packet before it.
pub(super) fn has_audio(packet: &[u8]) -> bool {
    Bits::new(packet).next_kind().is_some_and(|kind| kind != END)
}

/// The bits before a bit, followed by the end of a packet.
fn truncated_at(packet: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = packet[..bit / 8].to_vec();
    let kept_bits = bit % 8;
    let first = packet
        .get(bit / 8)
        .map_or(0, |byte| byte & !(0xff_u8 >> kept_bits));
    let [high, low] = (u16::from(first) << 8 | 0xe000 >> kept_bits).to_be_bytes();
    bytes.push(high);
    if kept_bits > 5 {
        bytes.push(low);
    }
    bytes
}

/// Reads bits, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, bit: 0 }
    }

    fn take(&mut self, count: usize) -> Option<u32> {
        (0..count).try_fold(0, |value, _| {
            let byte = self.bytes.get(self.bit / 8)?;
            let bit = byte >> (7 - self.bit % 8) & 1;
            self.bit += 1;
            Some(value << 1 | u32::from(bit))
        })
    }

    /// The first element type that is neither fill nor data; the next bits read are its content.
    fn next_kind(&mut self) -> Option<u32> {
        loop {
            self.bit = match self.take(3)? {
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
        Some(self.bit + count * 8)
    }

    fn end_of_data(&mut self) -> Option<usize> {
        self.take(4)?;
        let is_aligned = self.take(1)? == 1;
        let mut count = self.take(8)? as usize;
        if count == 255 {
            count += self.take(8)? as usize;
        }
        let start = if is_aligned {
            self.bit.next_multiple_of(8)
        } else {
            self.bit
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
    fn sbr_announced_in_the_configuration_is_recognized() {
        // 22.05 kHz stereo, then 0x2b7, type 5, present, 44.1 kHz; the same with the flag off; plain AAC alone.
        assert!(is_announced(&[0x13, 0x90, 0x56, 0xe5, 0xa0]));
        assert!(!is_announced(&[0x13, 0x90, 0x56, 0xe5, 0x00]));
        assert!(!is_announced(&[0x12, 0x10]));
        assert!(!is_announced(&[]));
    }

    #[test]
    fn a_packet_of_an_end_or_of_filling_alone_has_no_audio() {
        // An end; two bytes of filling and an end; a single channel; a channel pair after one fill byte.
        assert!(!has_audio(&[0xe0, 0]));
        assert!(!has_audio(&[0b1100_0100, 0, 0b0000_0001, 0b1100_0000]));
        assert!(has_audio(&[0x01, 0x40]));
        assert!(has_audio(&[0b1100_0010, 0, 0b0100_0000, 0]));
        assert!(!has_audio(&[]));
    }

    #[test]
    fn a_packet_is_cut_at_a_bit_and_ended() {
        assert_eq!(truncated_at(&[0xff, 0xff], 8), vec![0xff, 0xe0]);
        assert_eq!(truncated_at(&[0x00, 0x00], 3), vec![0b0001_1100]);
        assert_eq!(truncated_at(&[0x00, 0x00], 7), vec![0b0000_0001, 0b1100_0000]);
    }
}
