//! Computes stems from the song and the model's outputs.

use crate::audio::StereoBlock;

/// How stems are computed from the song and the model's outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StemFormula {
    /// UVR's: primary = compensate x d, secondary = x - primary. The stems sum to the song. Other models than MDX-Net
    /// have no level correction: compensate is 1.
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

/// Where a stem comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StemSource {
    /// The model finds it: the number of its output.
    Found(usize),
    /// The rest of the song without a stem that the model finds.
    Rest(usize),
}

/// The stems to compute, and the outputs of the model that they need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StemSelection {
    stems: Vec<StemSource>,
    outputs: Vec<usize>,
}

impl StemSource {
    fn output(self) -> usize {
        match self {
            Self::Found(output) | Self::Rest(output) => output,
        }
    }
}

impl StemSelection {
    /// Selects stems, in the order in which they are returned.
    pub(super) fn new(stems: &[StemSource]) -> Self {
        let mut outputs: Vec<usize> = stems.iter().map(|stem| stem.output()).collect();
        outputs.sort_unstable();
        outputs.dedup();
        Self {
            stems: stems.to_vec(),
            outputs,
        }
    }

    /// The needed outputs of the model, in ascending order.
    pub(super) fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// The stems, from the song `mix` and the needed outputs in `found`.
    pub(super) fn compute(
        &self,
        formula: StemFormula,
        mix: &StereoBlock,
        mut found: Vec<StereoBlock>,
    ) -> Vec<StereoBlock> {
        let (gain, removed) = match formula {
            StemFormula::Uvr { compensate } => (compensate, 1.0),
            StemFormula::AudioSeparator { compensate, peak } => (peak, compensate),
        };
        for sample in found
            .iter_mut()
            .flat_map(|block| block.left.iter_mut().chain(&mut block.right))
        {
            *sample *= gain;
        }
        let position = |output: usize| self.outputs.iter().position(|known| *known == output);
        let position = |stem: &StemSource| position(stem.output()).expect("all needed outputs are listed");
        let mut blocks: Vec<StereoBlock> = self
            .stems
            .iter()
            .map(|stem| match stem {
                StemSource::Found(_) => StereoBlock::default(),
                StemSource::Rest(_) => rest(mix, &found[position(stem)], removed),
            })
            .collect();
        // Moved last, because the rest of the song is computed from them.
        for (stem, block) in self.stems.iter().zip(&mut blocks) {
            if let StemSource::Found(_) = stem {
                *block = std::mem::take(&mut found[position(stem)]);
            }
        }
        blocks
    }
}

/// x - `removed` x primary.
fn rest(mix: &StereoBlock, primary: &StereoBlock, removed: f32) -> StereoBlock {
    let channel = |mix: &[f32], primary: &[f32]| {
        mix.iter()
            .zip(primary)
            .map(|(x, primary)| x - removed * primary)
            .collect()
    };
    StereoBlock {
        left: channel(&mix.left, &primary.left),
        right: channel(&mix.right, &primary.right),
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

    fn primary_and_secondary(formula: StemFormula, mix: &[f32], demixed: &[f32]) -> [StereoBlock; 2] {
        StemSelection::new(&[StemSource::Found(0), StemSource::Rest(0)])
            .compute(formula, &block(mix), vec![block(demixed)])
            .try_into()
            .expect("two stems")
    }

    #[test]
    fn stems_by_the_uvr_formula_sum_to_the_song() {
        let stems = primary_and_secondary(StemFormula::Uvr { compensate: 2.0 }, &[0.5, -0.25], &[0.1, 0.2]);
        assert_eq!(stems, [block(&[0.2, 0.4]), block(&[0.3, -0.65])]);
    }

    #[test]
    fn audio_separator_compensates_only_in_the_subtraction() {
        let formula = StemFormula::AudioSeparator {
            compensate: 2.0,
            peak: 0.5,
        };
        let stems = primary_and_secondary(formula, &[0.5], &[0.5]);
        assert_eq!(stems, [block(&[0.25]), block(&[0.0])]);
    }

    #[test]
    fn only_the_needed_outputs_are_taken_and_stems_keep_their_order() {
        let selection =
            StemSelection::new(&[StemSource::Rest(3), StemSource::Found(1), StemSource::Found(3)]);
        assert_eq!(selection.outputs(), [1, 3]);
        let found = vec![block(&[0.25]), block(&[0.5])];
        let stems = selection.compute(StemFormula::Uvr { compensate: 1.0 }, &block(&[1.0]), found);
        assert_eq!(stems, [block(&[0.5]), block(&[0.25]), block(&[0.5])]);
    }
}
