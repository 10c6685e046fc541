//! Finds coded audio that was stored as if it were samples: AC-3 or DTS for a digital output. As samples it is noise.

/// Bursts that have to be found: two, so that no music is refused for a few samples.
const BURSTS: u32 = 2;

/// Frames at the file's rate that are looked at: half a minute at 44.1 kHz.
const LOOKED_AT_FRAMES: usize = 1_323_000;

/// Watches the first samples of a file, in the order in which the file has them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: [u16; 3],
    samples: usize,
    found: Option<(&'static str, u32)>,
}

impl Watch {
    /// Takes further samples; the name of the coding once it is certain.
    pub(super) fn push(&mut self, samples: &[f32]) -> Option<&'static str> {
        if self.samples >= 2 * LOOKED_AT_FRAMES {
            return None;
        }
        self.samples += samples.len();
        for sample in samples {
            let scaled = sample * 32_768.0;
            // What is no integer of 16 bits ends every burst.
            let word = if scaled.fract() == 0.0 { scaled as i16 } else { 0 };
            self.last = [self.last[1], self.last[2], word.cast_unsigned()];
            let Some(name) = burst(self.last) else {
                continue;
            };
            let count = match self.found {
                Some((before, count)) if before == name => count + 1,
                _ => 1,
            };
            self.found = Some((name, count));
            if count == BURSTS {
                return Some(name);
            }
        }
        None
    }
}

/// The coding that begins with three words.
fn burst([first, second, third]: [u16; 3]) -> Option<&'static str> {
    match (first, second) {
        // IEC 61937-1: two words of preamble, then the kind of data.
        (0xf872, 0x4e1f) => match third & 0x7f {
            1 => Some("AC-3"),
            4..=6 => Some("MPEG audio"),
            7 => Some("AAC"),
            11..=13 | 17 => Some("DTS"),
            21 => Some("E-AC-3"),
            22 => Some("TrueHD"),
            _ => None,
        },
        // ETSI TS 102 114: a sync word in words of 16 or of 14 bits, and a normal frame behind it.
        (0x7ffe, 0x8001) if third & 0xfc00 == 0xfc00 => Some("DTS"),
        (0xfe7f, 0x0180) if third & 0x00fc == 0x00fc => Some("DTS"),
        (0x1fff, 0xe800) if third & 0xfff0 == 0x07f0 => Some("DTS"),
        (0xff1f, 0x00e8) if third & 0xf0ff == 0xf007 => Some("DTS"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(words: &[u16]) -> Vec<f32> {
        words
            .iter()
            .map(|word| f32::from(word.cast_signed()) / 32_768.0)
            .collect()
    }

    #[test]
    fn two_bursts_are_certain_and_one_is_not() {
        let burst = [samples(&[0xf872, 0x4e1f, 1, 100]), vec![0.5; 1_000]].concat();
        let mut watch = Watch::default();
        assert_eq!(watch.push(&burst), None);
        assert_eq!(watch.push(&burst[..2]), None);
        assert_eq!(watch.push(&burst[2..]), Some("AC-3"));
        let mut watch = Watch::default();
        assert_eq!(watch.push(&samples(&[0x7ffe, 0x8001].repeat(1_000))), None);
        assert_eq!(
            watch.push(&samples(&[0x1fff, 0xe800, 0x07f2].repeat(2))),
            Some("DTS")
        );
    }
}
