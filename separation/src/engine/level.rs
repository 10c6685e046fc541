//! The level of a song, which some models expect to be normalized: the mean becomes 0 and the standard deviation 1.
//!
//! Demucs (`Separator.separate_tensor` in demucs/api.py) and ZFTurbo's `normalize_audio` take both from the average of
//! the channels, and restore them in every stem. Unlike there, a song whose average is constant is not scaled: it may
//! still have samples, if its channels are opposite or it is one frame long, and these would be divided by 1e-8.

use crate::audio::StereoBlock;

/// The level of a song: mean and standard deviation of the average of its channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    mean: f64,
    deviation: f64,
}

/// Computes the level of a song that is read block by block.
#[derive(Debug, Clone, Default)]
pub struct LevelMeter {
    frames: u64,
    sum: f64,
    sum_of_squares: f64,
}

impl LevelMeter {
    /// Adds the next block.
    pub fn add(&mut self, block: &StereoBlock) {
        self.frames += block.frames() as u64;
        for (left, right) in block.left.iter().zip(&block.right) {
            let average = 0.5 * (f64::from(*left) + f64::from(*right));
            self.sum += average;
            self.sum_of_squares += average * average;
        }
    }

    /// The level of all blocks.
    pub fn level(&self) -> Level {
        let frames = self.frames.max(1) as f64;
        let mean = self.sum / frames;
        // Bessel's correction, as `torch.std` applies it; a single frame has no deviation.
        let variance = (self.sum_of_squares - self.sum * mean) / (frames - 1.0).max(1.0);
        Level {
            mean,
            deviation: variance.max(0.0).sqrt(),
        }
    }
}

impl Level {
    /// The average of a song with a smaller deviation (-120 dB) is constant.
    const SMALLEST_DEVIATION: f64 = 1e-6;

    /// Demucs' margin, which does not matter here.
    const MARGIN: f64 = 1e-8;

    fn divisor(self) -> f64 {
        if self.deviation < Self::SMALLEST_DEVIATION {
            return 1.0;
        }
        self.deviation + Self::MARGIN
    }

    /// Normalizes samples of the song.
    pub(super) fn normalize(self, samples: &mut [f32]) {
        for sample in samples {
            *sample = ((f64::from(*sample) - self.mean) / self.divisor()) as f32;
        }
    }

    /// Restores the level in samples of a stem.
    pub(super) fn restore(self, samples: &mut [f32]) {
        for sample in samples {
            *sample = (f64::from(*sample) * self.divisor() + self.mean) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(left: &[f32], right: &[f32]) -> Level {
        let mut meter = LevelMeter::default();
        for k in 0..left.len() {
            meter.add(&StereoBlock {
                left: vec![left[k]],
                right: vec![right[k]],
            });
        }
        meter.level()
    }

    #[test]
    fn the_level_is_that_of_the_average_of_both_channels() {
        // Averages 1, 2, 3: mean 2, deviation 1.
        let level = level(&[0.0, 2.0, 6.0], &[2.0, 2.0, 0.0]);
        assert_eq!((level.mean, level.deviation), (2.0, 1.0));
    }

    #[test]
    fn a_normalized_song_is_restored_exactly_enough() {
        let level = level(&[0.1, -0.7, 0.3], &[0.2, 0.4, -0.3]);
        let mut samples = [0.25, -0.5, 1.0];
        level.normalize(&mut samples);
        level.restore(&mut samples);
        for (found, expected) in samples.into_iter().zip([0.25, -0.5, 1.0]) {
            assert!((found - expected).abs() < 1e-7, "{found}");
        }
    }

    #[test]
    fn a_song_with_a_constant_average_is_not_scaled() {
        for level in [
            level(&[0.0; 4], &[0.0; 4]),
            level(&[0.5], &[-0.5]),
            level(&[0.5, -0.25], &[-0.5, 0.25]),
            level(&[], &[]),
        ] {
            let mut samples = [0.0, 0.5];
            level.normalize(&mut samples);
            assert_eq!(samples, [0.0, 0.5], "{level:?}");
        }
    }
}
