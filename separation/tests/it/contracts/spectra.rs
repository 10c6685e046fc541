//! Short-time Fourier transforms in double precision, as `torch.stft` and `torch.istft` define them: centered, mirrored
//! at the edges, with a periodic Hann window.

use std::f64::consts::TAU;
use std::ops::{Add, Mul, Sub};

use super::oracle::Stereo;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Complex {
    pub(crate) re: f64,
    pub(crate) im: f64,
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        complex(self.re + other.re, self.im + other.im)
    }
}

impl Sub for Complex {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        complex(self.re - other.re, self.im - other.im)
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        complex(
            self.re * other.re - self.im * other.im,
            self.re * other.im + self.im * other.re,
        )
    }
}

pub(crate) fn complex(re: f64, im: f64) -> Complex {
    Complex { re, im }
}

/// Spectra of both channels: \[channel\]\[row * columns + column\].
pub(crate) type Spectra = [Vec<Complex>; 2];

/// A transform and its inverse.
#[derive(Debug, Clone)]
pub(crate) struct Stft {
    n_fft: usize,
    hop: usize,
    /// Divided by the square root of n_fft if normalized.
    scale: f64,
    hann: Vec<f64>,
    roots: Vec<Complex>,
}

impl Stft {
    pub(crate) fn new(n_fft: usize, hop: usize, is_normalized: bool) -> Self {
        assert!(n_fft.is_power_of_two());
        let angle = |k: usize| TAU * k as f64 / n_fft as f64;
        Self {
            n_fft,
            hop,
            scale: if is_normalized { (n_fft as f64).sqrt() } else { 1.0 },
            hann: (0..n_fft).map(|k| 0.5 - 0.5 * angle(k).cos()).collect(),
            roots: (0..n_fft)
                .map(|k| complex(angle(k).cos(), -angle(k).sin()))
                .collect(),
        }
    }

    pub(crate) fn columns(&self, chunk: usize) -> usize {
        chunk / self.hop + 1
    }

    /// The lowest `rows` rows.
    pub(crate) fn forward(&self, chunk: &Stereo, rows: usize) -> Spectra {
        let columns = self.columns(chunk[0].len());
        let padded = [0, 1].map(|c| self.mirrored(&chunk[c]));
        let mut spectra = [0, 1].map(|_| vec![Complex::default(); rows * columns]);
        for column in 0..columns {
            // Left and right share one transform as real and imaginary part.
            let frame: Vec<Complex> = (0..self.n_fft)
                .map(|k| {
                    let at = column * self.hop + k;
                    let weight = self.hann[k] / self.scale;
                    complex(padded[0][at] * weight, padded[1][at] * weight)
                })
                .collect();
            let both = self.fft(&frame);
            for row in 0..rows {
                let (a, b) = (both[row], both[(self.n_fft - row) % self.n_fft]);
                spectra[0][row * columns + column] = complex(0.5 * (a.re + b.re), 0.5 * (a.im - b.im));
                spectra[1][row * columns + column] = complex(0.5 * (a.im + b.im), -0.5 * (a.re - b.re));
            }
        }
        spectra
    }

    /// The chunk of `length` frames; rows that are missing are silent.
    pub(crate) fn inverse(&self, spectra: &Spectra, length: usize) -> Stereo {
        let columns = self.columns(length);
        let rows = spectra[0].len() / columns;
        let mut sums = [0, 1].map(|_| vec![0.0; length + self.n_fft]);
        let mut squares = vec![0.0; length + self.n_fft];
        for column in 0..columns {
            let at = |c: usize, row: usize| {
                let value = if row < rows {
                    spectra[c][row * columns + column]
                } else {
                    Complex::default()
                };
                let is_real = row == 0 || row == self.n_fft / 2;
                complex(value.re, if is_real { 0.0 } else { value.im })
            };
            let full = |c: usize, k: usize| {
                if k <= self.n_fft / 2 {
                    return at(c, k);
                }
                let mirror = at(c, self.n_fft - k);
                complex(mirror.re, -mirror.im)
            };
            // The inverse transform is the forward one of the conjugate, conjugated.
            let joined: Vec<Complex> = (0..self.n_fft)
                .map(|k| {
                    let (left, right) = (full(0, k), full(1, k));
                    complex(left.re - right.im, -(left.im + right.re))
                })
                .collect();
            for (k, value) in self.fft(&joined).into_iter().enumerate() {
                let at = column * self.hop + k;
                let weight = self.hann[k] * self.scale / self.n_fft as f64;
                sums[0][at] += value.re * weight;
                sums[1][at] -= value.im * weight;
                squares[at] += self.hann[k] * self.hann[k];
            }
        }
        let inner = self.n_fft / 2..self.n_fft / 2 + length;
        sums.map(|sums| inner.clone().map(|at| sums[at] / squares[at]).collect())
    }

    fn mirrored(&self, samples: &[f64]) -> Vec<f64> {
        let margin = self.n_fft / 2;
        let before = samples[1..=margin].iter().rev();
        let after = samples[samples.len() - 1 - margin..samples.len() - 1]
            .iter()
            .rev();
        before.chain(samples).chain(after).copied().collect()
    }

    fn fft(&self, samples: &[Complex]) -> Vec<Complex> {
        let bits = self.n_fft.trailing_zeros();
        let place = |k: usize| k.reverse_bits() >> (usize::BITS - bits);
        let mut values: Vec<Complex> = (0..self.n_fft).map(|k| samples[place(k)]).collect();
        let mut half = 1;
        while half < self.n_fft {
            for block in values.chunks_exact_mut(2 * half) {
                let (front, back) = block.split_at_mut(half);
                for (k, (front, back)) in front.iter_mut().zip(back).enumerate() {
                    let turned = *back * self.roots[k * self.n_fft / (2 * half)];
                    (*front, *back) = (*front + turned, *front - turned);
                }
            }
            half *= 2;
        }
        values
    }
}

#[test]
fn the_transform_is_the_sum_that_defines_it() {
    let stft = Stft::new(16, 4, false);
    let samples: Vec<Complex> = (0..16)
        .map(|k| complex((k * k) as f64, (3 * k % 7) as f64))
        .collect();
    for (k, value) in stft.fft(&samples).into_iter().enumerate() {
        let mut sum = Complex::default();
        for (m, sample) in samples.iter().enumerate() {
            let angle = -TAU * (k * m) as f64 / 16.0;
            sum = sum + *sample * complex(angle.cos(), angle.sin());
        }
        assert!((value.re - sum.re).hypot(value.im - sum.im) < 1e-9);
    }
}

#[test]
fn spectra_of_all_rows_give_the_chunk_back() {
    let chunk: Stereo = [0, 1].map(|c| (0..300).map(|k| ((k * k + c) as f64 * 0.01).sin()).collect());
    for is_normalized in [false, true] {
        let stft = Stft::new(64, 13, is_normalized);
        let back = stft.inverse(&stft.forward(&chunk, 33), 300);
        for (a, b) in chunk.iter().flatten().zip(back.iter().flatten()) {
            assert!((a - b).abs() < 1e-12);
        }
    }
}
