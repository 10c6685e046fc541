//! Computes the two stems from the model's output.

use crate::audio::StereoBlock;

/// How the two stems are computed from the song and the model's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StemFormula {
    /// UVR's: primary = compensate x d, secondary = x - primary. The stems sum to the song.
    Uvr {
        /// The model's level correction.
        compensate: f32,
    },
    /// The formula of the Python package audio-separator: primary = p x d, secondary = x - compensate x
    /// primary, where p is the song's peak before it was scaled. The stems do not sum to the song; for
    /// comparison only.
    AudioSeparator {
        /// The model's level correction.
        compensate: f32,
        /// p: the largest absolute sample of the input song.
        peak: f32,
    },
}

/// The same block of both stems.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StemBlocks {
    /// The stem that the model was trained to find.
    pub primary: StereoBlock,
    /// The rest of the song.
    pub secondary: StereoBlock,
}

impl StemFormula {
    /// Both stems, from the song `mix` and the model's output `demixed`.
    pub fn apply(self, mix: &StereoBlock, mut demixed: StereoBlock) -> StemBlocks {
        let (primary_gain, removed) = match self {
            Self::Uvr { compensate } => (compensate, 1.0),
            Self::AudioSeparator { compensate, peak } => (peak, compensate),
        };
        let mut secondary = StereoBlock::default();
        for (mix, demixed, secondary) in [
            (&mix.left, &mut demixed.left, &mut secondary.left),
            (&mix.right, &mut demixed.right, &mut secondary.right),
        ] {
            for sample in demixed.iter_mut() {
                *sample *= primary_gain;
            }
            secondary.extend(
                mix.iter()
                    .zip(demixed.iter())
                    .map(|(x, primary)| x - removed * primary),
            );
        }
        StemBlocks {
            primary: demixed,
            secondary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(samples: &[f32]) -> StereoBlock {
        StereoBlock {
            left: samples.to_vec(),
            right: samples.to_vec(),
        }
    }

    #[test]
    fn stems_by_the_uvr_formula_sum_to_the_song() {
        let stems = StemFormula::Uvr { compensate: 2.0 }.apply(&block(&[0.5, -0.25]), block(&[0.1, 0.2]));
        assert_eq!(stems.primary, block(&[0.2, 0.4]));
        assert_eq!(stems.secondary, block(&[0.3, -0.65]));
    }

    #[test]
    fn audio_separator_compensates_only_in_the_subtraction() {
        let formula = StemFormula::AudioSeparator {
            compensate: 2.0,
            peak: 0.5,
        };
        let stems = formula.apply(&block(&[0.5]), block(&[0.5]));
        assert_eq!(stems.primary, block(&[0.25]));
        assert_eq!(stems.secondary, block(&[0.0]));
    }
}
