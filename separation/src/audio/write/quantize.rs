//! Converts samples to integers.
//!
//! The scale is 2^(bits-1), the one that decoders divide by, so 16-bit audio round-trips bit for bit.
//! Rounding is to the nearest step, halves away from zero. There is no dither: stems must sum to the mix.

/// Rounds to integers of one width and counts clipped samples.
#[derive(Debug)]
pub(super) struct Quantizer {
    scale: f32,
    clipped_samples: u64,
}

impl Quantizer {
    /// Accepts 16 or 24 bits; both scales and all steps are exact in `f32`.
    pub(super) fn new(bits: u32) -> Self {
        Self {
            scale: (1_u32 << (bits - 1)) as f32,
            clipped_samples: 0,
        }
    }

    /// The nearest integer, clamped to the range. NaN becomes 0 and counts as clipped.
    pub(super) fn quantize(&mut self, sample: f32) -> i32 {
        let steps = (sample * self.scale).round();
        let nearest = steps.clamp(-self.scale, self.scale - 1.0);
        if nearest != steps {
            self.clipped_samples += 1;
        }
        // NaN becomes 0; everything else is in range.
        nearest as i32
    }

    /// Number of samples outside the range so far.
    pub(super) fn clipped_samples(&self) -> u64 {
        self.clipped_samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_exact_and_halves_round_away_from_zero() {
        let mut quantizer = Quantizer::new(16);
        for step in i32::from(i16::MIN)..=i32::from(i16::MAX) {
            assert_eq!(quantizer.quantize(step as f32 / 32_768.0), step);
        }
        assert_eq!(quantizer.quantize(2.5 / 32_768.0), 3);
        assert_eq!(quantizer.quantize(-2.5 / 32_768.0), -3);
        assert_eq!(quantizer.clipped_samples(), 0);
    }

    #[test]
    fn samples_beyond_full_scale_are_clipped_and_counted() {
        let mut quantizer = Quantizer::new(24);
        assert_eq!(quantizer.quantize(1.0), 8_388_607);
        assert_eq!(quantizer.quantize(-1.5), -8_388_608);
        assert_eq!(quantizer.quantize(f32::INFINITY), 8_388_607);
        assert_eq!(quantizer.quantize(f32::NAN), 0);
        assert_eq!(quantizer.quantize(-1.0), -8_388_608);
        assert_eq!(quantizer.clipped_samples(), 4);
    }
}
