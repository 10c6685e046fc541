//! Turns samples into integers.
//!
//! The scale is 2^(bits-1), the one that decoders divide by, so that 16-bit audio comes back bit by bit. Rounding is
//! to the nearest step, halves away from zero. There is no dither: stems must sum to the mix.

/// Rounds to integers of one width and counts what did not fit.
#[derive(Debug)]
pub(super) struct Quantiser {
    scale: f32,
    clipped_samples: u64,
}

impl Quantiser {
    /// For 16 or 24 bits; both scales and all steps are exact in `f32`.
    pub(super) fn new(bits: u32) -> Self {
        Self {
            scale: (1_u32 << (bits - 1)) as f32,
            clipped_samples: 0,
        }
    }

    /// The nearest integer, or the end of the range. What is no number becomes 0 and counts as clipped.
    pub(super) fn quantise(&mut self, sample: f32) -> i32 {
        let steps = (sample * self.scale).round();
        let nearest = steps.clamp(-self.scale, self.scale - 1.0);
        if nearest != steps {
            self.clipped_samples += 1;
        }
        // NaN becomes 0; everything else is in range.
        nearest as i32
    }

    /// Samples that were outside the range so far.
    pub(super) fn clipped_samples(&self) -> u64 {
        self.clipped_samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_back_and_halves_go_away_from_zero() {
        let mut quantiser = Quantiser::new(16);
        for step in i32::from(i16::MIN)..=i32::from(i16::MAX) {
            assert_eq!(quantiser.quantise(step as f32 / 32_768.0), step);
        }
        assert_eq!(quantiser.quantise(2.5 / 32_768.0), 3);
        assert_eq!(quantiser.quantise(-2.5 / 32_768.0), -3);
        assert_eq!(quantiser.clipped_samples(), 0);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let mut quantiser = Quantiser::new(24);
        assert_eq!(quantiser.quantise(1.0), 8_388_607);
        assert_eq!(quantiser.quantise(-1.5), -8_388_608);
        assert_eq!(quantiser.quantise(f32::INFINITY), 8_388_607);
        assert_eq!(quantiser.quantise(f32::NAN), 0);
        assert_eq!(quantiser.quantise(-1.0), -8_388_608);
        assert_eq!(quantiser.clipped_samples(), 4);
    }
}
