//! The short-time Fourier transform of one chunk and its inverse.
//!
//! The spectrum of a chunk is a slice of 4 x F x T floats: left real, left imaginary, right real, right
//! imaginary; in each, F rows (frequencies) of T columns (time). The transform is centered, padded by
//! reflection without repeating the edge, with a periodic Hann window and no normalization; as in
//! `torch.stft`.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::geometry::{HOP_FRAMES, SpectrumShape};
use crate::audio::StereoBlock;

/// Lowest rows set to zero in the model's input: below 3 x 44100 / n_fft Hz there is no music.
const SILENT_ROWS: usize = 3;

/// Columns transformed before they are written out together: neighboring columns of a row share a cache line
/// (16 floats x 4 bytes = 64 bytes).
const COLUMNS_AT_ONCE: usize = 16;

/// Transforms chunks of audio to spectra. Holds its plans and scratch space; one per thread.
pub struct Analyzer {
    shape: SpectrumShape,
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    padded: Vec<f32>,
    frame: Vec<f32>,
    spectra: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Analyzer {
    /// An analyzer for spectra of `shape`.
    pub fn new(shape: SpectrumShape) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(shape.n_fft());
        let bins = shape.n_fft() / 2 + 1;
        Self {
            shape,
            window: periodic_hann(shape.n_fft()),
            padded: vec![0.0; shape.chunk_frames() + shape.n_fft()],
            frame: fft.make_input_vec(),
            spectra: vec![Complex32::default(); bins * COLUMNS_AT_ONCE],
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }

    /// Writes the spectrum of `chunk` to `spectrum`, with its lowest rows zeroed.
    ///
    /// # Panics
    /// If `chunk` is not one chunk long or `spectrum` is not one spectrum large.
    pub fn transform(&mut self, chunk: &StereoBlock, spectrum: &mut [f32]) {
        assert_eq!(chunk.frames(), self.shape.chunk_frames(), "one chunk");
        assert_eq!(spectrum.len(), self.shape.values(), "one spectrum");
        let (left, right) = spectrum.split_at_mut(spectrum.len() / 2);
        self.transform_channel(&chunk.left, left);
        self.transform_channel(&chunk.right, right);
    }

    fn transform_channel(&mut self, samples: &[f32], spectrum: &mut [f32]) {
        let (rows, columns) = (self.shape.rows(), self.shape.columns());
        let bins = self.shape.n_fft() / 2 + 1;
        reflect(samples, self.shape.n_fft() / 2, &mut self.padded);
        let (real, imaginary) = spectrum.split_at_mut(rows * columns);
        let silent = SILENT_ROWS.min(rows) * columns;
        real[..silent].fill(0.0);
        imaginary[..silent].fill(0.0);
        for first in (0..columns).step_by(COLUMNS_AT_ONCE) {
            let count = COLUMNS_AT_ONCE.min(columns - first);
            for (column, spectrum) in self.spectra.chunks_exact_mut(bins).take(count).enumerate() {
                let start = (first + column) * HOP_FRAMES;
                let frame = &self.padded[start..start + self.window.len()];
                for ((windowed, sample), weight) in self.frame.iter_mut().zip(frame).zip(&self.window) {
                    *windowed = sample * weight;
                }
                self.fft
                    .process_with_scratch(&mut self.frame, spectrum, &mut self.scratch)
                    .expect("the plan made these buffers");
            }
            for row in SILENT_ROWS..rows {
                let start = row * columns + first;
                let values = self.spectra[row..].iter().step_by(bins);
                let out = real[start..start + count]
                    .iter_mut()
                    .zip(&mut imaginary[start..start + count]);
                for (value, (re, im)) in values.zip(out) {
                    *re = value.re;
                    *im = value.im;
                }
            }
        }
    }
}

/// Transforms spectra to chunks of audio. Holds its plans and scratch space; one per thread.
pub struct Synthesizer {
    shape: SpectrumShape,
    window: Vec<f32>,
    /// 1 / (n_fft * sum of the squared windows) at each frame of a chunk.
    weight: Vec<f32>,
    fft: Arc<dyn ComplexToReal<f32>>,
    padded: Vec<f32>,
    frame: Vec<f32>,
    spectra: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Synthesizer {
    /// A synthesizer for spectra of `shape`.
    pub fn new(shape: SpectrumShape) -> Self {
        let fft = RealFftPlanner::new().plan_fft_inverse(shape.n_fft());
        let bins = shape.n_fft() / 2 + 1;
        Self {
            shape,
            window: periodic_hann(shape.n_fft()),
            weight: synthesis_weight(shape),
            padded: vec![0.0; shape.chunk_frames() + shape.n_fft()],
            frame: fft.make_output_vec(),
            spectra: vec![Complex32::default(); bins * COLUMNS_AT_ONCE],
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }

    /// Writes the chunk for `spectrum` to `chunk`; rows above F are silence.
    ///
    /// # Panics
    /// If `spectrum` is not one spectrum large.
    pub fn transform(&mut self, spectrum: &[f32], chunk: &mut StereoBlock) {
        assert_eq!(spectrum.len(), self.shape.values(), "one spectrum");
        let (left, right) = spectrum.split_at(spectrum.len() / 2);
        self.transform_channel(left, &mut chunk.left);
        self.transform_channel(right, &mut chunk.right);
    }

    fn transform_channel(&mut self, spectrum: &[f32], samples: &mut Vec<f32>) {
        let (rows, columns) = (self.shape.rows(), self.shape.columns());
        let bins = self.shape.n_fft() / 2 + 1;
        let (real, imaginary) = spectrum.split_at(rows * columns);
        self.padded.fill(0.0);
        for first in (0..columns).step_by(COLUMNS_AT_ONCE) {
            let count = COLUMNS_AT_ONCE.min(columns - first);
            // The inverse transform uses its input as scratch space, so the silent rows are cleared each time.
            self.spectra.fill(Complex32::default());
            for row in 0..rows {
                let start = row * columns + first;
                let values = real[start..start + count]
                    .iter()
                    .zip(&imaginary[start..start + count]);
                for (out, (&re, &im)) in self.spectra[row..].iter_mut().step_by(bins).zip(values) {
                    *out = Complex32::new(re, im);
                }
            }
            for (column, spectrum) in self.spectra.chunks_exact_mut(bins).take(count).enumerate() {
                // A real signal has no imaginary part at 0 Hz and at the Nyquist frequency.
                spectrum[0].im = 0.0;
                spectrum[bins - 1].im = 0.0;
                self.fft
                    .process_with_scratch(spectrum, &mut self.frame, &mut self.scratch)
                    .expect("the plan made these buffers, and both imaginary parts are 0");
                let start = (first + column) * HOP_FRAMES;
                let out = &mut self.padded[start..start + self.window.len()];
                for ((sum, sample), weight) in out.iter_mut().zip(&self.frame).zip(&self.window) {
                    *sum += sample * weight;
                }
            }
        }
        let inner = &self.padded[self.shape.n_fft() / 2..][..self.weight.len()];
        samples.clear();
        samples.extend(inner.iter().zip(&self.weight).map(|(sum, weight)| sum * weight));
    }
}

/// w\[k\] = 0.5 - 0.5 cos(2 pi k / n), k = 0 .. n - 1, computed in doubles.
fn periodic_hann(n: usize) -> Vec<f32> {
    (0..n).map(|k| hann_at(k, n) as f32).collect()
}

fn hann_at(k: usize, n: usize) -> f64 {
    0.5 - 0.5 * (2.0 * PI * k as f64 / n as f64).cos()
}

/// Overlap-adding windowed frames scales each frame by the sum of its squared windows, and the inverse
/// transform of `realfft` scales by n_fft. Returns the reciprocal of both, for the frames inside the
/// centering padding.
fn synthesis_weight(shape: SpectrumShape) -> Vec<f32> {
    let n_fft = shape.n_fft();
    let mut sums = vec![0.0_f64; shape.chunk_frames() + n_fft];
    for column in 0..shape.columns() {
        for (k, sum) in sums[column * HOP_FRAMES..][..n_fft].iter_mut().enumerate() {
            *sum += hann_at(k, n_fft).powi(2);
        }
    }
    let inner = &sums[n_fft / 2..][..shape.chunk_frames()];
    inner
        .iter()
        .map(|sum| (1.0 / (n_fft as f64 * sum)) as f32)
        .collect()
}

/// Copies `samples` to the middle of `padded` and mirrors `margin` frames at each side without repeating the
/// edge.
fn reflect(samples: &[f32], margin: usize, padded: &mut [f32]) {
    let end = margin + samples.len();
    padded[margin..end].copy_from_slice(samples);
    for k in 1..=margin {
        padded[margin - k] = samples[k];
        padded[end - 1 + k] = samples[samples.len() - 1 - k];
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::SpectrumSizes;
    use super::*;

    #[test]
    fn reflections_do_not_repeat_the_edge() {
        let mut padded = [0.0; 8];
        reflect(&[1.0, 2.0, 3.0, 4.0], 2, &mut padded);
        assert_eq!(padded, [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
    }

    #[test]
    fn a_spectrum_of_all_rows_restores_the_chunk_except_for_its_lowest_rows() {
        let shape = SpectrumShape::new(SpectrumSizes {
            n_fft: 4096,
            rows: 2049,
            columns: 16,
        })
        .unwrap();
        let frequency_hz = 1000.0;
        let tone: Vec<f32> = (0..shape.chunk_frames())
            .map(|k| (2.0 * PI * frequency_hz * k as f64 / 44_100.0).sin() as f32)
            .collect();
        let chunk = StereoBlock {
            right: tone.iter().map(|s| -s).collect(),
            left: tone,
        };
        let mut spectrum = vec![0.0; shape.values()];
        Analyzer::new(shape).transform(&chunk, &mut spectrum);
        let mut back = StereoBlock::default();
        Synthesizer::new(shape).transform(&spectrum, &mut back);
        // Mirroring bends the tone at the edges, so it leaks into the zeroed rows there.
        let inner = 4096..shape.chunk_frames() - 4096;
        let difference = |a: &[f32], b: &[f32]| {
            a[inner.clone()]
                .iter()
                .zip(&b[inner.clone()])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max)
        };
        assert!(difference(&chunk.left, &back.left) < 1e-5);
        assert!(difference(&chunk.right, &back.right) < 1e-5);
    }
}
