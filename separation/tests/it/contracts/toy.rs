//! The toy models of `worker/tests/models`, computed in double precision from the formulas in their README.

use std::f64::consts::TAU;

use super::oracle::Stereo;
use super::spectra::{Spectra, Stft, complex};

/// The order of the channels of the convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Planes {
    /// Left real, right real, left imaginary, right imaginary.
    ByPart,
    /// Left real, left imaginary, right real, right imaginary.
    ByChannel,
}

/// A model of spectra.
#[derive(Debug, Clone)]
pub(crate) struct SpectrumToy {
    pub(crate) stft: Stft,
    pub(crate) rows: usize,
    pub(crate) stems: usize,
    pub(crate) planes: Planes,
    pub(crate) is_mask: bool,
}

/// The stems of a waveform model.
pub(crate) fn waveform(chunk: &Stereo, stems: usize) -> Vec<Stereo> {
    let frames = chunk[0].len();
    let channel = |o: usize| {
        (0..frames)
            .map(|k| {
                let mut u = 0.0;
                for (i, x) in chunk.iter().enumerate() {
                    for a in 0..3 {
                        let x = (k + a).checked_sub(1).and_then(|at| x.get(at)).unwrap_or(&0.0);
                        u += waveform_weight(o, i, a) * x;
                    }
                }
                bend(u) * (1.0 + (TAU * (k % 997) as f64 / 997.0).sin() / 4.0)
            })
            .collect()
    };
    (0..stems)
        .map(|stem| [channel(2 * stem), channel(2 * stem + 1)])
        .collect()
}

fn waveform_weight(o: usize, i: usize, a: usize) -> f64 {
    let small = (((7 * o + 5 * i + 3 * a) % 23) as f64 - 11.0) / 256.0;
    if (o % 2, a) == (i, 1) { small + 0.5 } else { small }
}

fn spectrum_weight(o: usize, i: usize, a: usize, b: usize) -> f64 {
    let small = (((7 * o + 5 * i + 3 * a + 11 * b) % 23) as f64 - 11.0) / 256.0;
    if (o % 4, a, b) == (i, 1, 1) {
        small + 0.5
    } else {
        small
    }
}

fn bend(u: f64) -> f64 {
    0.5 * u + 0.25 * u.abs() + 0.25 * u * u.abs() / (8.0 + u.abs())
}

impl SpectrumToy {
    /// The stems of a chunk.
    pub(crate) fn run(&self, chunk: &Stereo) -> Vec<Stereo> {
        let spectra = self.stft.forward(chunk, self.rows);
        let columns = self.stft.columns(chunk[0].len());
        let planes = self.planes_of(&spectra);
        (0..self.stems)
            .map(|stem| {
                let found: Vec<Vec<f64>> = (0..4)
                    .map(|c| convolution(&planes, columns, 4 * stem + c))
                    .map(|plane| plane.into_iter().map(|u| self.nonlinear(u)).collect())
                    .collect();
                let mut found = self.spectra_of(&found);
                if self.is_mask {
                    for (found, spectra) in found.iter_mut().zip(&spectra) {
                        for (mask, x) in found.iter_mut().zip(spectra) {
                            *mask = *mask * *x;
                        }
                    }
                }
                self.stft.inverse(&found, chunk[0].len())
            })
            .collect()
    }

    fn nonlinear(&self, u: f64) -> f64 {
        if self.is_mask {
            let v = u / 64.0;
            (v + 0.5 * v.abs()) / (1.0 + v.abs())
        } else {
            bend(u)
        }
    }

    fn planes_of(&self, spectra: &Spectra) -> Vec<Vec<f64>> {
        let real = |c: usize| spectra[c].iter().map(|value| value.re).collect();
        let imaginary = |c: usize| spectra[c].iter().map(|value| value.im).collect();
        match self.planes {
            Planes::ByPart => vec![real(0), real(1), imaginary(0), imaginary(1)],
            Planes::ByChannel => vec![real(0), imaginary(0), real(1), imaginary(1)],
        }
    }

    fn spectra_of(&self, planes: &[Vec<f64>]) -> Spectra {
        let pair = |re: usize, im: usize| {
            let pairs = planes[re].iter().zip(&planes[im]);
            pairs.map(|(re, im)| complex(*re, *im)).collect()
        };
        match self.planes {
            Planes::ByPart => [pair(0, 2), pair(1, 3)],
            Planes::ByChannel => [pair(0, 1), pair(2, 3)],
        }
    }
}

/// Channel `o` of the convolution of planes with `columns`, which are 0 outside.
fn convolution(planes: &[Vec<f64>], columns: usize, o: usize) -> Vec<f64> {
    let rows = planes[0].len() / columns;
    let mut sum = vec![0.0; planes[0].len()];
    for (i, x) in planes.iter().enumerate() {
        for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            let weight = spectrum_weight(o, i, a, b);
            for row in 0..rows {
                let Some(source) = (row + a).checked_sub(1).filter(|source| *source < rows) else {
                    continue;
                };
                let out = &mut sum[row * columns..][..columns];
                let x = &x[source * columns..][..columns];
                // out[t] += weight * x[t + b - 1]
                let (out, x) = match b {
                    0 => (&mut out[1..], &x[..columns - 1]),
                    1 => (out, x),
                    _ => (&mut out[..columns - 1], &x[1..]),
                };
                for (out, x) in out.iter_mut().zip(x) {
                    *out += weight * x;
                }
            }
        }
    }
    sum
}
