//! One chunk to its spectrum and back, with the complete padded chunk in memory.

use std::f64::consts::TAU;

use super::fft::{Complex, Fft};
use super::{HOP, Stereo};

/// The transform of chunks with one `n_fft`.
pub(super) struct Stft {
    n_fft: usize,
    fft: Fft,
    hann: Vec<f64>,
}

/// The one-sided spectra of both channels at one point in time: n_fft / 2 + 1 values each.
pub(super) struct Frame {
    pub(super) left: Vec<Complex>,
    pub(super) right: Vec<Complex>,
}

impl Stft {
    pub(super) fn new(n_fft: usize) -> Self {
        Self {
            n_fft,
            fft: Fft::new(n_fft),
            hann: (0..n_fft)
                .map(|k| 0.5 - 0.5 * (TAU * k as f64 / n_fft as f64).cos())
                .collect(),
        }
    }

    /// Centered frames, one per hop: 1 + length / hop.
    pub(super) fn frames(&self, chunk: &Stereo) -> Vec<Frame> {
        let left = reflect_pad(&chunk[0], self.n_fft / 2);
        let right = reflect_pad(&chunk[1], self.n_fft / 2);
        (0..=chunk[0].len() / HOP)
            .map(|t| {
                // Left and right share one transform as real and imaginary part and are separated by symmetry.
                let both: Vec<_> = (0..self.n_fft)
                    .map(|k| {
                        let at = t * HOP + k;
                        Complex::new(left[at] * self.hann[k], right[at] * self.hann[k])
                    })
                    .collect();
                self.split(&self.fft.forward(&both))
            })
            .collect()
    }

    fn split(&self, both: &[Complex]) -> Frame {
        let halves = |combine: fn(Complex, Complex) -> Complex| {
            (0..=self.n_fft / 2)
                .map(|k| combine(both[k], both[(self.n_fft - k) % self.n_fft].conjugate()))
                .collect()
        };
        Frame {
            left: halves(|a, b| Complex::new(0.5 * (a.re + b.re), 0.5 * (a.im + b.im))),
            // (a - b) / 2i
            right: halves(|a, b| Complex::new(0.5 * (a.im - b.im), -0.5 * (a.re - b.re))),
        }
    }

    /// The chunk of `length` samples that `frames` describe.
    pub(super) fn chunk(&self, frames: &[Frame], length: usize) -> Stereo {
        let padded = length + self.n_fft;
        let mut sums = [vec![0.0; padded], vec![0.0; padded]];
        let mut squares = vec![0.0; padded];
        for (t, frame) in frames.iter().enumerate() {
            let both = self.fft.inverse(&self.join(frame));
            for (k, (sample, hann)) in both.iter().zip(&self.hann).enumerate() {
                let at = t * HOP + k;
                sums[0][at] += sample.re * hann;
                sums[1][at] += sample.im * hann;
                squares[at] += hann * hann;
            }
        }
        sums.map(|sums| {
            (0..length)
                .map(|k| k + self.n_fft / 2)
                .map(|at| sums[at] / squares[at])
                .collect()
        })
    }

    /// Left + i right over all n_fft rows, each the mirror image of a real signal's spectrum.
    fn join(&self, frame: &Frame) -> Vec<Complex> {
        let last = self.n_fft / 2;
        let full_spectrum = |half: &[Complex], k: usize| match k {
            0 => Complex::new(half[0].re, 0.0),
            k if k == last => Complex::new(half[last].re, 0.0),
            k if k < last => half[k],
            k => half[self.n_fft - k].conjugate(),
        };
        (0..self.n_fft)
            .map(|k| {
                let (left, right) = (full_spectrum(&frame.left, k), full_spectrum(&frame.right, k));
                Complex::new(left.re - right.im, left.im + right.re)
            })
            .collect()
    }
}

/// numpy's `reflect`: 3 2 | 1 2 3 4 | 3 2.
fn reflect_pad(samples: &[f64], margin: usize) -> Vec<f64> {
    let front = samples[1..=margin].iter().rev();
    let back = samples[samples.len() - 1 - margin..samples.len() - 1]
        .iter()
        .rev();
    front.chain(samples).chain(back).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_mirrors_without_repeating_the_edge() {
        assert_eq!(
            reflect_pad(&[1.0, 2.0, 3.0, 4.0], 2),
            [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]
        );
    }

    #[test]
    fn frames_of_any_audio_give_it_back() {
        let length = 8 * HOP;
        let left: Vec<f64> = (0..length).map(|k| (k as f64 * k as f64 * 0.01).sin()).collect();
        let right: Vec<f64> = (0..length).map(|k| (k as f64 * 0.37).cos()).collect();
        let chunk = [left, right];
        let stft = Stft::new(5120);
        let back = stft.chunk(&stft.frames(&chunk), length);
        for (a, b) in chunk.iter().flatten().zip(back.iter().flatten()) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn a_tone_stands_in_its_row_of_its_channel() {
        let (n_fft, row, length) = (2048, 100, 16 * HOP);
        let tone = |k: usize| 0.5 * (TAU * row as f64 * k as f64 / n_fft as f64).cos();
        let chunk = [vec![0.0; length], (0..length).map(tone).collect()];
        let frames = Stft::new(n_fft).frames(&chunk);
        assert_eq!(frames.len(), 17);
        // The periodic Hann window sums to n / 2; a real tone of amplitude a has a / 2 times this value.
        let value = frames[8].right[row];
        assert!((value.re.hypot(value.im) - n_fft as f64 / 8.0).abs() < 1e-9);
        assert!(frames[8].left.iter().all(|value| value.re.hypot(value.im) < 1e-9));
    }
}
