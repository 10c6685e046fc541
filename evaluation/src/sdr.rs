//! The plain signal-to-distortion ratio: 10 log10(sum of reference^2 / sum of (reference - estimate)^2), both channels.

use anyhow::{Result, ensure};
use separation::audio::{StereoBlock, StereoSource};

/// The SDR in dB of an estimate, read block by block; infinite if it equals the reference.
///
/// # Errors
/// If either cannot be read, they differ in length, or the reference is silent.
pub fn sdr_db(reference: &mut dyn StereoSource, estimate: &mut dyn StereoSource) -> Result<f64> {
    let mut reference = Cursor::new(reference);
    let mut estimate = Cursor::new(estimate);
    let mut energies = Energies::default();
    loop {
        let frames = reference.available()?.min(estimate.available()?);
        if frames == 0 {
            break;
        }
        energies.add(reference.take(frames), estimate.take(frames));
    }
    let (left_of_reference, left_of_estimate) = (reference.available()?, estimate.available()?);
    ensure!(
        left_of_reference == 0 && left_of_estimate == 0,
        "reference and estimate differ in length: the {} ends first, after {} frames",
        if left_of_reference == 0 {
            "reference"
        } else {
            "estimate"
        },
        reference.taken
    );
    ensure!(energies.reference > 0.0, "the reference is silent");
    ensure!(energies.error.is_finite(), "a sample is not finite");
    Ok(energies.ratio_db())
}

/// Sums over all samples of both channels.
#[derive(Debug, Default)]
struct Energies {
    reference: f64,
    error: f64,
}

impl Energies {
    fn add(&mut self, reference: [&[f32]; 2], estimate: [&[f32]; 2]) {
        for (reference, estimate) in reference.into_iter().zip(estimate) {
            for (wanted, found) in reference.iter().zip(estimate) {
                let (wanted, found) = (f64::from(*wanted), f64::from(*found));
                self.reference += wanted * wanted;
                self.error += (wanted - found) * (wanted - found);
            }
        }
    }

    fn ratio_db(&self) -> f64 {
        10.0 * (self.reference / self.error).log10()
    }
}

/// Reads a source in steps of any size.
struct Cursor<'s> {
    source: &'s mut dyn StereoSource,
    block: StereoBlock,
    used: usize,
    taken: u64,
}

impl<'s> Cursor<'s> {
    fn new(source: &'s mut dyn StereoSource) -> Self {
        Self {
            source,
            block: StereoBlock::default(),
            used: 0,
            taken: 0,
        }
    }

    /// Frames available now; 0 only at the end.
    fn available(&mut self) -> Result<usize> {
        if self.used == self.block.frames() {
            self.source.read(&mut self.block)?;
            self.used = 0;
        }
        Ok(self.block.frames() - self.used)
    }

    fn take(&mut self, frames: usize) -> [&[f32]; 2] {
        let taken = self.used..self.used + frames;
        self.used = taken.end;
        self.taken += frames as u64;
        [&self.block.left[taken.clone()], &self.block.right[taken]]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use separation::audio::AudioError;

    use super::*;

    /// A source of given samples (the right channel is their negative) in blocks of a given size.
    pub(crate) struct Samples {
        pub(crate) samples: Vec<f32>,
        pub(crate) block_frames: usize,
    }

    impl StereoSource for Samples {
        fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError> {
            let frames = self.block_frames.min(self.samples.len());
            block.left = self.samples.drain(..frames).collect();
            block.right = block.left.iter().map(|sample| -sample).collect();
            Ok(())
        }

        fn expected_frames(&self) -> Option<u64> {
            None
        }
    }

    fn sdr(reference: Vec<f32>, estimate: Vec<f32>) -> Result<f64> {
        let mut reference = Samples {
            samples: reference,
            block_frames: 7,
        };
        let mut estimate = Samples {
            samples: estimate,
            block_frames: 4,
        };
        sdr_db(&mut reference, &mut estimate)
    }

    fn check(scale: f32, expected_db: f64) {
        let reference: Vec<f32> = (1..=100).map(|n| (n as f32).sin()).collect();
        let estimate = reference.iter().map(|sample| scale * sample).collect();
        let found = sdr(reference, estimate).unwrap();
        assert!(
            (found - expected_db).abs() < 1e-4,
            "{found} dB, not {expected_db}"
        );
    }

    #[test]
    fn a_scaled_copy_has_the_sdr_of_its_error() {
        check(0.9, 20.0);
        check(1.5, 20.0 * 2.0_f64.log10());
        check(0.0, 0.0);
        check(2.0, 0.0);
        check(-1.0, -20.0 * 2.0_f64.log10());
    }

    #[test]
    fn a_perfect_copy_is_infinitely_good() {
        assert_eq!(sdr(vec![0.5; 30], vec![0.5; 30]).unwrap(), f64::INFINITY);
    }

    #[test]
    fn recordings_that_cannot_be_compared_are_refused() {
        let refused = |reference, estimate| sdr(reference, estimate).unwrap_err().to_string();
        assert_eq!(
            refused(vec![0.5; 30], vec![0.5; 28]),
            "reference and estimate differ in length: the estimate ends first, after 28 frames"
        );
        assert_eq!(
            refused(vec![0.5; 28], vec![0.5; 30]),
            "reference and estimate differ in length: the reference ends first, after 28 frames"
        );
        assert_eq!(refused(vec![0.0; 30], vec![0.5; 30]), "the reference is silent");
        assert_eq!(
            refused(vec![0.5; 2], vec![0.5, f32::NAN]),
            "a sample is not finite"
        );
        assert_eq!(refused(vec![], vec![]), "the reference is silent");
    }
}
