//! The reference result of a separation, computed plainly: full arrays in double precision, every chunk of the song, no
//! code shared with the engine. Written from the definition of MDX-Net inference, for comparison with the engine.

mod fft;
pub(crate) mod fixture_model;
mod self_check;
mod stft;

use std::f64::consts::TAU;

use fft::Complex;
use stft::{Frame, Stft};

/// Hop size: samples between two frames of a spectrum.
const HOP: usize = 1024;

/// Left real, left imaginary, right real, right imaginary.
const CHANNELS: usize = 4;

/// Left and right.
pub(crate) type Stereo = [Vec<f64>; 2];

/// A model: from a spectrum of \[4\]\[F\]\[T\] (left real, left imaginary, right real, right imaginary) to another.
pub(crate) type Model<'m> = &'m dyn Fn(&[f64]) -> Vec<f64>;

/// Parameters of the separation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameters {
    /// Length of the transform.
    pub(crate) n_fft: usize,
    /// F: rows of the model's input.
    pub(crate) rows: usize,
    /// T: frames of the model's input.
    pub(crate) columns: usize,
    /// The fraction of a chunk that overlaps with the next one.
    pub(crate) overlap: f64,
    /// Whether the model also processes the negated song.
    pub(crate) denoise: bool,
}

impl Parameters {
    pub(crate) fn chunk(&self) -> usize {
        HOP * (self.columns - 1)
    }

    pub(crate) fn gen_frames(&self) -> usize {
        self.chunk() - self.n_fft
    }

    fn step(&self) -> usize {
        ((1.0 - self.overlap) * self.chunk() as f64) as usize
    }
}

/// Two stems.
pub(crate) struct Stems {
    pub(crate) primary: Stereo,
    pub(crate) secondary: Stereo,
}

/// Stems of the song `x` by UVR's formula.
pub(crate) fn uvr_stems(x: &Stereo, parameters: Parameters, compensate: f64, model: Model<'_>) -> Stems {
    let primary = scaled(&demix(x, parameters, model), compensate);
    let secondary = less(x, &primary, 1.0);
    Stems { primary, secondary }
}

/// Stems of the song `x` by the formula of the Python package audio-separator.
pub(crate) fn audio_separator_stems(
    x: &Stereo,
    parameters: Parameters,
    compensate: f64,
    model: Model<'_>,
) -> Stems {
    let p = peak(x);
    let m = lowered(x.clone());
    let primary = scaled(&demix(&m, parameters, model), p);
    let secondary = less(&m, &primary, compensate);
    Stems {
        primary: lowered(primary),
        secondary: lowered(secondary),
    }
}

/// The model's output for the complete song `x`.
pub(crate) fn demix(x: &Stereo, parameters: Parameters, model: Model<'_>) -> Stereo {
    let n = x[0].len();
    let trim = parameters.n_fft / 2;
    let pad = parameters.gen_frames() + trim - n % parameters.gen_frames();
    let length = trim + n + pad;
    let z = x.clone().map(|x| [vec![0.0; trim], x, vec![0.0; pad]].concat());

    let stft = Stft::new(parameters.n_fft);
    let mut res = [vec![0.0; length], vec![0.0; length]];
    let mut div = vec![0.0; length];
    for s in (0..length).step_by(parameters.step()) {
        let e = (s + parameters.chunk()).min(length);
        let mut chunk = z.clone_range(s, e);
        for channel in &mut chunk {
            channel.resize(parameters.chunk(), 0.0);
        }
        let y = run(&chunk, &stft, parameters, model);
        let w = window(e - s, parameters.overlap);
        for k in 0..e - s {
            res[0][s + k] += y[0][k] * w[k];
            res[1][s + k] += y[1][k] * w[k];
            div[s + k] += w[k];
        }
    }
    res.map(|res| (trim..trim + n).map(|k| res[k] / div[k]).collect())
}

/// A symmetric Hann window, or ones if chunks do not overlap.
fn window(length: usize, overlap: f64) -> Vec<f64> {
    if overlap == 0.0 || length == 1 {
        return vec![1.0; length];
    }
    (0..length)
        .map(|k| 0.5 - 0.5 * (TAU * k as f64 / (length - 1) as f64).cos())
        .collect()
}

/// The model's output for one chunk.
fn run(chunk: &Stereo, stft: &Stft, parameters: Parameters, model: Model<'_>) -> Stereo {
    let spectrum = to_spectrum(&stft.frames(chunk), parameters);
    let answer = if parameters.denoise {
        let negated: Vec<f64> = spectrum.iter().map(|value| -value).collect();
        let (plus, minus) = (model(&spectrum), model(&negated));
        plus.iter()
            .zip(&minus)
            .map(|(plus, minus)| 0.5 * plus - 0.5 * minus)
            .collect()
    } else {
        model(&spectrum)
    };
    stft.chunk(&to_frames(&answer, parameters), parameters.chunk())
}

/// \[4\]\[F\]\[T\] of the lowest F rows; the lowest three of them are 0.
fn to_spectrum(frames: &[Frame], parameters: Parameters) -> Vec<f64> {
    let (rows, columns) = (parameters.rows, parameters.columns);
    assert_eq!(frames.len(), columns, "one chunk");
    let mut spectrum = vec![0.0; CHANNELS * rows * columns];
    for row in 3..rows {
        for (t, frame) in frames.iter().enumerate() {
            let values = [
                frame.left[row].re,
                frame.left[row].im,
                frame.right[row].re,
                frame.right[row].im,
            ];
            for (plane, value) in values.into_iter().enumerate() {
                spectrum[(plane * rows + row) * columns + t] = value;
            }
        }
    }
    spectrum
}

/// Frames of all n_fft / 2 + 1 rows; those above F are 0.
fn to_frames(spectrum: &[f64], parameters: Parameters) -> Vec<Frame> {
    let (rows, columns) = (parameters.rows, parameters.columns);
    let channel = |first_plane: usize, t: usize| {
        (0..=parameters.n_fft / 2)
            .map(|row| {
                if row >= rows {
                    return Complex::default();
                }
                let at = |plane: usize| spectrum[(plane * rows + row) * columns + t];
                Complex::new(at(first_plane), at(first_plane + 1))
            })
            .collect()
    };
    (0..columns)
        .map(|t| Frame {
            left: channel(0, t),
            right: channel(2, t),
        })
        .collect()
}

trait CloneRange {
    fn clone_range(&self, start: usize, end: usize) -> Self;
}

impl CloneRange for Stereo {
    fn clone_range(&self, start: usize, end: usize) -> Self {
        [self[0][start..end].to_vec(), self[1][start..end].to_vec()]
    }
}

/// The greatest absolute sample.
pub(crate) fn peak(x: &Stereo) -> f64 {
    x.iter()
        .flatten()
        .fold(0.0, |peak, sample| sample.abs().max(peak))
}

/// Scaled to a peak of 0.9 if it is above.
fn lowered(x: Stereo) -> Stereo {
    let peak = peak(&x);
    if peak > 0.9 { scaled(&x, 0.9 / peak) } else { x }
}

fn scaled(x: &Stereo, gain: f64) -> Stereo {
    x.clone()
        .map(|channel| channel.iter().map(|sample| gain * sample).collect())
}

/// `x` - `gain` * `removed`.
fn less(x: &Stereo, removed: &Stereo, gain: f64) -> Stereo {
    [0, 1].map(|channel| {
        let removed = removed[channel].iter();
        x[channel]
            .iter()
            .zip(removed)
            .map(|(x, removed)| x - gain * removed)
            .collect()
    })
}
