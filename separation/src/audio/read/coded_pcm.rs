//! Finds coded audio that was stored as samples: AC-3 or DTS for a digital output. Played as samples it is
//! noise.

/// Bursts required: two, so that a few matching samples do not refuse music.
const BURSTS: u32 = 2;

/// Frames inspected, at the file's rate: half a minute at 44.1 kHz.
const INSPECTED_FRAMES: usize = 1_323_000;

/// Watches the first samples of a file, in file order.
#[derive(Debug, Default)]
pub(super) struct CodedPcmDetector {
    last: [u16; 3],
    samples: usize,
    found: Option<(&'static str, u32)>,
}

impl CodedPcmDetector {
    /// Takes further samples and returns the name of the coding once it is certain.
    pub(super) fn push(&mut self, samples: &[f32]) -> Option<&'static str> {
        if self.samples >= 2 * INSPECTED_FRAMES {
            return None;
        }
        self.samples += samples.len();
        for sample in samples {
            let scaled = sample * 32_768.0;
            // A sample that is not a 16-bit integer ends a burst.
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

/// The coding whose bursts begin with these three words.
fn burst([first, second, third]: [u16; 3]) -> Option<&'static str> {
    match (first, second) {
        // IEC 61937-1: a preamble of two words, then the data type.
        (0xf872, 0x4e1f) => match third & 0x7f {
            1 => Some("AC-3"),
            4..=6 => Some("MPEG audio"),
            7 => Some("AAC"),
            11..=13 | 17 => Some("DTS"),
            21 => Some("E-AC-3"),
            22 => Some("TrueHD"),
            _ => None,
        },
        // ETSI TS 102 114: a sync word in 16-bit or 14-bit words, followed by a normal frame.
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
        let mut detector = CodedPcmDetector::default();
        assert_eq!(detector.push(&burst), None);
        assert_eq!(detector.push(&burst[..2]), None);
        assert_eq!(detector.push(&burst[2..]), Some("AC-3"));
        let mut detector = CodedPcmDetector::default();
        assert_eq!(detector.push(&samples(&[0x7ffe, 0x8001].repeat(1_000))), None);
        assert_eq!(
            detector.push(&samples(&[0x1fff, 0xe800, 0x07f2].repeat(2))),
            Some("DTS")
        );
    }
}
