//! The discrete Fourier transform by the textbook: decimation in time over the length's prime factors, at most 7.

use std::f64::consts::TAU;
use std::ops::{Add, AddAssign, Mul};

/// A complex number in double precision.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

impl Complex {
    pub(super) fn new(re: f64, im: f64) -> Self {
        Self { re, im }
    }

    pub(super) fn conjugate(self) -> Self {
        Self::new(self.re, -self.im)
    }
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(self.re + other.re, self.im + other.im)
    }
}

impl AddAssign for Complex {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self::new(
            self.re * other.re - self.im * other.im,
            self.re * other.im + self.im * other.re,
        )
    }
}

/// Transforms of one length, with precomputed roots of unity.
pub(super) struct Fft {
    /// exp(-2 pi i k / n), k = 0 .. n - 1.
    roots: Vec<Complex>,
}

impl Fft {
    pub(super) fn new(length: usize) -> Self {
        let roots = (0..length)
            .map(|k| {
                let angle = -TAU * k as f64 / length as f64;
                Complex::new(angle.cos(), angle.sin())
            })
            .collect();
        Self { roots }
    }

    /// X\[k\] = sum over m of x\[m\] exp(-2 pi i k m / n).
    pub(super) fn forward(&self, samples: &[Complex]) -> Vec<Complex> {
        assert_eq!(samples.len(), self.roots.len(), "one transform");
        let mut spectrum = vec![Complex::default(); samples.len()];
        self.recurse(samples, 1, &mut spectrum);
        spectrum
    }

    /// x\[m\] = 1/n sum over k of X\[k\] exp(2 pi i k m / n): the forward transform between two conjugations.
    pub(super) fn inverse(&self, spectrum: &[Complex]) -> Vec<Complex> {
        let conjugated: Vec<_> = spectrum.iter().map(|value| value.conjugate()).collect();
        let scale = 1.0 / spectrum.len() as f64;
        self.forward(&conjugated)
            .into_iter()
            .map(|value| Complex::new(value.re * scale, -value.im * scale))
            .collect()
    }

    /// Transforms every `stride`-th sample; the spectrum has `spectrum.len()` values.
    fn recurse(&self, samples: &[Complex], stride: usize, spectrum: &mut [Complex]) {
        let length = spectrum.len();
        if length == 1 {
            spectrum[0] = samples[0];
            return;
        }
        let factor = smallest_factor(length);
        let part = length / factor;
        for (offset, spectrum) in spectrum.chunks_exact_mut(part).enumerate() {
            self.recurse(&samples[offset * stride..], stride * factor, spectrum);
        }
        let mut parts = [Complex::default(); MAX_FACTOR];
        for k in 0..part {
            for (offset, value) in parts[..factor].iter_mut().enumerate() {
                *value = spectrum[offset * part + k] * self.roots[offset * k * stride];
            }
            for turn in 0..factor {
                let mut sum = parts[0];
                for (offset, &value) in parts[..factor].iter().enumerate().skip(1) {
                    sum += value * self.roots[(offset * turn) % factor * part * stride];
                }
                spectrum[turn * part + k] = sum;
            }
        }
    }
}

/// The largest prime factor that a length may have.
const MAX_FACTOR: usize = 7;

/// 4 replaces two factors of 2: this halves the passes over the data.
fn smallest_factor(length: usize) -> usize {
    [4, 2, 3, 5, 7]
        .into_iter()
        .find(|&factor| length.is_multiple_of(factor))
        .expect("transform lengths have no prime factor above 7")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<Complex> {
        (0..length)
            .map(|k| Complex::new((k as f64 * 1.7).sin(), (k as f64 * k as f64 * 0.3).cos()))
            .collect()
    }

    fn difference(a: &[Complex], b: &[Complex]) -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a.re - b.re).hypot(a.im - b.im))
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_transform_is_the_sum_that_defines_it() {
        for length in [1, 2, 3, 4, 5, 7, 8, 12, 30, 60, 240] {
            let samples = noise(length);
            let sums: Vec<_> = (0..length)
                .map(|k| {
                    let mut sum = Complex::default();
                    for (m, &sample) in samples.iter().enumerate() {
                        let angle = -TAU * ((k * m) % length) as f64 / length as f64;
                        sum += sample * Complex::new(angle.cos(), angle.sin());
                    }
                    sum
                })
                .collect();
            assert!(difference(&Fft::new(length).forward(&samples), &sums) < 1e-11);
        }
    }

    #[test]
    fn the_inverse_undoes_the_transform_and_energy_is_kept() {
        for length in [2048, 5120, 6144, 7680, 16384] {
            let samples = noise(length);
            let fft = Fft::new(length);
            let spectrum = fft.forward(&samples);
            assert!(difference(&fft.inverse(&spectrum), &samples) < 1e-12);
            let energy = |values: &[Complex]| values.iter().map(|v| v.re * v.re + v.im * v.im).sum::<f64>();
            let ratio = energy(&spectrum) / (length as f64 * energy(&samples));
            assert!((ratio - 1.0).abs() < 1e-12, "Parseval at {length}: {ratio}");
        }
    }
}
