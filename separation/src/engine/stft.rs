//! The short-time Fourier transform of one chunk and its inverse.
//!
//! The spectra of a chunk are a slice of 4 x F x T floats: real and imaginary parts of both channels, F rows
//! (frequencies) and T columns (time), in the order of their layout. The transform is centered, padded by reflection
//! without repeating the edge, with a periodic Hann window; as in `torch.stft`.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::tensors::{ChannelStrides, SpectrumScale, SpectrumTensor};
use crate::audio::StereoBlock;

/// Columns transformed before they are written out together: neighboring columns of a row share a cache line
/// (16 floats x 4 bytes = 64 bytes).
const COLUMNS_AT_ONCE: usize = 16;

/// Transforms chunks of audio to spectra. Holds its plans and scratch space; one per thread.
pub struct Analyzer {
    tensor: SpectrumTensor,
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    padded: Vec<f32>,
    frame: Vec<f32>,
    spectra: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Analyzer {
    /// An analyzer for spectra of `tensor`.
    pub fn new(tensor: SpectrumTensor) -> Self {
        let shape = tensor.shape;
        let fft = RealFftPlanner::new().plan_fft_forward(shape.n_fft());
        let bins = shape.n_fft() / 2 + 1;
        let mut window = periodic_hann(shape.n_fft());
        if tensor.scale == SpectrumScale::Normalized {
            let scale = 1.0 / (shape.n_fft() as f64).sqrt();
            for weight in &mut window {
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        Self {
            tensor,
            window,
            padded: vec![0.0; shape.chunk_frames() + shape.n_fft()],
            frame: fft.make_input_vec(),
            spectra: vec![Complex32::default(); bins * COLUMNS_AT_ONCE],
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }

    /// Writes the spectra of `chunk` to `spectrum`, with their lowest rows zeroed.
    ///
    /// # Panics
    /// If `chunk` is not one chunk long or `spectrum` is not one chunk large.
    pub fn transform(&mut self, chunk: &StereoBlock, spectrum: &mut [f32]) {
        assert_eq!(chunk.frames(), self.tensor.shape.chunk_frames(), "one chunk");
        assert_eq!(spectrum.len(), self.tensor.shape.values(), "one chunk");
        for (channel, samples) in [&chunk.left, &chunk.right].into_iter().enumerate() {
            self.transform_channel(samples, self.tensor.strides(channel), spectrum);
        }
    }

    fn transform_channel(&mut self, samples: &[f32], strides: ChannelStrides, spectrum: &mut [f32]) {
        let shape = self.tensor.shape;
        let columns = shape.columns();
        let bins = shape.n_fft() / 2 + 1;
        reflect(samples, shape.n_fft() / 2, &mut self.padded);
        for first in (0..columns).step_by(COLUMNS_AT_ONCE) {
            let count = COLUMNS_AT_ONCE.min(columns - first);
            for (column, transformed) in self.spectra.chunks_exact_mut(bins).take(count).enumerate() {
                let start = (first + column) * shape.hop_frames();
                let frame = &self.padded[start..start + self.window.len()];
                for ((windowed, sample), weight) in self.frame.iter_mut().zip(frame).zip(&self.window) {
                    *windowed = sample * weight;
                }
                self.fft
                    .process_with_scratch(&mut self.frame, transformed, &mut self.scratch)
                    .expect("the plan made these buffers");
                transformed[..self.tensor.silent_rows.min(bins)].fill(Complex32::default());
            }
            let values = |row: usize| self.spectra[row..].iter().step_by(bins).take(count);
            write_columns(shape.rows(), values, strides, first, spectrum);
        }
    }
}

/// Writes some columns, `values` of each row, to their places from column `first` on.
fn write_columns<'v, V: Iterator<Item = &'v Complex32>>(
    rows: usize,
    values: impl Fn(usize) -> V,
    strides: ChannelStrides,
    first: usize,
    spectrum: &mut [f32],
) {
    if strides.column == 1 {
        let (front, imaginary) = spectrum.split_at_mut(strides.imaginary);
        let real = &mut front[strides.real..];
        for row in 0..rows {
            let start = row * strides.row + first;
            let out = real[start..].iter_mut().zip(&mut imaginary[start..]);
            for (value, (re, im)) in values(row).zip(out) {
                *re = value.re;
                *im = value.im;
            }
        }
    } else {
        let pairs = &mut spectrum[strides.real..];
        for row in 0..rows {
            let start = row * strides.row + first * strides.column;
            for (value, pair) in values(row).zip(pairs[start..].chunks_exact_mut(2)) {
                pair[0] = value.re;
                pair[1] = value.im;
            }
        }
    }
}

/// Transforms spectra to chunks of audio. Holds its plans and scratch space; one per thread.
pub struct Synthesizer {
    tensor: SpectrumTensor,
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
    /// A synthesizer for spectra of `tensor`.
    pub fn new(tensor: SpectrumTensor) -> Self {
        let shape = tensor.shape;
        let fft = RealFftPlanner::new().plan_fft_inverse(shape.n_fft());
        let bins = shape.n_fft() / 2 + 1;
        Self {
            tensor,
            window: periodic_hann(shape.n_fft()),
            weight: synthesis_weight(tensor),
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
    /// If `spectrum` is not one chunk large.
    pub fn transform(&mut self, spectrum: &[f32], chunk: &mut StereoBlock) {
        assert_eq!(spectrum.len(), self.tensor.shape.values(), "one chunk");
        for (channel, samples) in [&mut chunk.left, &mut chunk.right].into_iter().enumerate() {
            self.transform_channel(spectrum, self.tensor.strides(channel), samples);
        }
    }

    fn transform_channel(&mut self, spectrum: &[f32], strides: ChannelStrides, samples: &mut Vec<f32>) {
        let shape = self.tensor.shape;
        let columns = shape.columns();
        let bins = shape.n_fft() / 2 + 1;
        self.padded.fill(0.0);
        for first in (0..columns).step_by(COLUMNS_AT_ONCE) {
            let count = COLUMNS_AT_ONCE.min(columns - first);
            // The inverse transform uses its input as scratch space, so the silent rows are cleared each time.
            self.spectra.fill(Complex32::default());
            for row in 0..shape.rows() {
                let out = self.spectra[row..].iter_mut().step_by(bins).take(count);
                read_columns(spectrum, strides, row, first, out);
            }
            for (column, transformed) in self.spectra.chunks_exact_mut(bins).take(count).enumerate() {
                // A real signal has no imaginary part at 0 Hz and at the Nyquist frequency.
                transformed[0].im = 0.0;
                transformed[bins - 1].im = 0.0;
                self.fft
                    .process_with_scratch(transformed, &mut self.frame, &mut self.scratch)
                    .expect("the plan made these buffers, and both imaginary parts are 0");
                let start = (first + column) * shape.hop_frames();
                let out = &mut self.padded[start..start + self.window.len()];
                for ((sum, sample), weight) in out.iter_mut().zip(&self.frame).zip(&self.window) {
                    *sum += sample * weight;
                }
            }
        }
        let inner = &self.padded[shape.n_fft() / 2..][..self.weight.len()];
        samples.clear();
        samples.extend(inner.iter().zip(&self.weight).map(|(sum, weight)| sum * weight));
    }
}

/// Reads the values of a row from column `first` on.
fn read_columns<'v>(
    spectrum: &[f32],
    strides: ChannelStrides,
    row: usize,
    first: usize,
    out: impl Iterator<Item = &'v mut Complex32>,
) {
    let start = row * strides.row + first * strides.column;
    if strides.column == 1 {
        let real = &spectrum[strides.real + start..];
        let imaginary = &spectrum[strides.imaginary + start..];
        for (out, (&re, &im)) in out.zip(real.iter().zip(imaginary)) {
            *out = Complex32::new(re, im);
        }
    } else {
        let pairs = spectrum[strides.real + start..].chunks_exact(2);
        for (out, pair) in out.zip(pairs) {
            *out = Complex32::new(pair[0], pair[1]);
        }
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
fn synthesis_weight(tensor: SpectrumTensor) -> Vec<f32> {
    let shape = tensor.shape;
    let n_fft = shape.n_fft();
    let mut sums = vec![0.0_f64; shape.chunk_frames() + n_fft];
    for column in 0..shape.columns() {
        for (k, sum) in sums[column * shape.hop_frames()..][..n_fft]
            .iter_mut()
            .enumerate()
        {
            *sum += hann_at(k, n_fft).powi(2);
        }
    }
    let scale = match tensor.scale {
        SpectrumScale::Sum => n_fft as f64,
        SpectrumScale::Normalized => (n_fft as f64).sqrt(),
    };
    let inner = &sums[n_fft / 2..][..shape.chunk_frames()];
    inner.iter().map(|sum| (1.0 / (scale * sum)) as f32).collect()
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
    use super::super::spectrum::{SpectrumShape, SpectrumSizes};
    use super::super::tensors::SpectrumLayout;
    use super::*;

    #[test]
    fn reflections_do_not_repeat_the_edge() {
        let mut padded = [0.0; 8];
        reflect(&[1.0, 2.0, 3.0, 4.0], 2, &mut padded);
        assert_eq!(padded, [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
    }

    fn tone(shape: SpectrumShape) -> StereoBlock {
        let frequency_hz = 1000.0;
        let tone: Vec<f32> = (0..shape.chunk_frames())
            .map(|k| (2.0 * PI * frequency_hz * k as f64 / 44_100.0).sin() as f32)
            .collect();
        StereoBlock {
            right: tone.iter().map(|s| -s).collect(),
            left: tone,
        }
    }

    /// The chunk after both transforms differs by less than 1e-5, `margin` frames at its ends left out.
    fn check(tensor: SpectrumTensor, margin: usize) {
        let shape = tensor.shape;
        let chunk = tone(shape);
        let mut spectrum = vec![0.0; shape.values()];
        Analyzer::new(tensor).transform(&chunk, &mut spectrum);
        let mut back = StereoBlock::default();
        Synthesizer::new(tensor).transform(&spectrum, &mut back);
        assert_eq!(back.frames(), shape.chunk_frames());
        let inner = margin..shape.chunk_frames() - margin;
        let difference = |a: &[f32], b: &[f32]| {
            a[inner.clone()]
                .iter()
                .zip(&b[inner.clone()])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max)
        };
        assert!(difference(&chunk.left, &back.left) < 1e-5, "{tensor:?}");
        assert!(difference(&chunk.right, &back.right) < 1e-5, "{tensor:?}");
    }

    #[test]
    fn a_spectrum_of_all_rows_restores_the_chunk_except_for_its_lowest_rows() {
        let shape = SpectrumShape::new(SpectrumSizes {
            n_fft: 4096,
            hop_frames: 1024,
            rows: 2049,
            columns: 16,
        });
        // Mirroring bends the tone at the edges, so it leaks into the zeroed rows there.
        check(SpectrumTensor::mdx_net(shape.unwrap()), 4096);
    }

    #[test]
    fn every_layout_and_scale_restores_a_chunk_that_ends_between_two_hops() {
        let shape = SpectrumShape::new(SpectrumSizes {
            n_fft: 2048,
            hop_frames: 441,
            rows: 1025,
            columns: 20,
        });
        let shape = shape.unwrap().with_chunk_frames(441 * 19 + 440).unwrap();
        for layout in [
            SpectrumLayout::PartsOfPlanes,
            SpectrumLayout::ChannelsOfPairs,
            SpectrumLayout::RowsOfPairs,
        ] {
            for scale in [SpectrumScale::Sum, SpectrumScale::Normalized] {
                let tensor = SpectrumTensor {
                    layout,
                    scale,
                    silent_rows: 0,
                    ..SpectrumTensor::mdx_net(shape)
                };
                check(tensor, 0);
            }
        }
    }
}
