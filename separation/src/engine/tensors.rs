//! The values that a model takes for one chunk and returns for each of its stems: domains and layouts, without audio
//! and without transforms.

use super::spectrum::{ShapeError, SpectrumShape};

/// What a model takes and returns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensors {
    /// What it takes for one chunk.
    pub chunk: ChunkTensor,
    /// Stems that it returns for a chunk, each as large as `chunk`.
    pub stems: usize,
}

/// The values of one chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChunkTensor {
    /// \[2\]\[frames\]: the samples of the left channel, then those of the right one.
    Waveform {
        /// Frames of a chunk.
        frames: usize,
    },
    /// Short-time Fourier transforms of both channels.
    Spectrum(SpectrumTensor),
}

/// The spectra of both channels of a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpectrumTensor {
    /// Sizes of the spectra and of the transform.
    pub shape: SpectrumShape,
    /// The order of the values.
    pub layout: SpectrumLayout,
    /// Lowest rows set to 0 in the model's input.
    pub silent_rows: usize,
    /// Scale of the transform.
    pub scale: SpectrumScale,
    /// The meaning of the model's output.
    pub output: SpectrumOutput,
}

/// The order of the values of a chunk's spectra, from the slowest index to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpectrumLayout {
    /// \[channel\]\[part\]\[row\]\[column\], where a part is real or imaginary: left real, left imaginary, right
    /// real, right imaginary.
    ChannelsOfPlanes,
    /// \[part\]\[channel\]\[row\]\[column\]: left real, right real, left imaginary, right imaginary.
    PartsOfPlanes,
    /// \[channel\]\[row\]\[column\]\[part\].
    ChannelsOfPairs,
    /// \[row\]\[channel\]\[column\]\[part\].
    RowsOfPairs,
}

/// The scale of a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpectrumScale {
    /// The sum of the windowed samples, as `torch.stft` computes it by default.
    Sum,
    /// The sum divided by the square root of n_fft: `normalized=True` of `torch.stft`.
    Normalized,
}

/// The meaning of a model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpectrumOutput {
    /// The spectra of the stem.
    Spectrum,
    /// Complex factors, which make the spectra of the stem from those of the song.
    Mask,
}

/// Where the values of one channel are in a chunk's spectra.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelStrides {
    /// The first real value.
    pub(super) real: usize,
    /// The first imaginary value.
    pub(super) imaginary: usize,
    /// From one row to the next.
    pub(super) row: usize,
    /// From one column to the next.
    pub(super) column: usize,
}

impl ChunkTensor {
    /// Chunks of `frames` samples in each channel.
    ///
    /// # Errors
    /// If they are longer than any known model's, or too short to overlap.
    pub fn waveform(frames: usize) -> Result<Self, ShapeError> {
        if (SpectrumShape::MIN_CHUNK_FRAMES..=SpectrumShape::MAX_CHUNK_FRAMES).contains(&frames) {
            Ok(Self::Waveform { frames })
        } else {
            Err(ShapeError::ChunkFrames { frames })
        }
    }

    /// A chunk of half the length, if that is long enough.
    pub fn halved(&self) -> Option<Self> {
        match self {
            Self::Waveform { frames } => Self::waveform(frames / 2).ok(),
            Self::Spectrum(spectrum) => Some(Self::Spectrum(SpectrumTensor {
                shape: spectrum.shape.halved()?,
                ..*spectrum
            })),
        }
    }

    /// Floats in one chunk.
    pub fn values(&self) -> usize {
        match self {
            Self::Waveform { frames } => 2 * frames,
            Self::Spectrum(spectrum) => spectrum.shape.values(),
        }
    }

    /// Frames of one chunk.
    pub fn chunk_frames(&self) -> usize {
        match self {
            Self::Waveform { frames } => *frames,
            Self::Spectrum(spectrum) => spectrum.shape.chunk_frames(),
        }
    }

    /// The spectra whose masks the model returns, if it does.
    pub(super) fn masked(&self) -> Option<&SpectrumTensor> {
        match self {
            Self::Spectrum(spectrum) if spectrum.output == SpectrumOutput::Mask => Some(spectrum),
            Self::Spectrum(_) | Self::Waveform { .. } => None,
        }
    }
}

impl SpectrumTensor {
    /// Lowest rows that UVR sets to 0: below 3 x 44100 / n_fft Hz there is no music.
    const MDX_NET_SILENT_ROWS: usize = 3;

    /// The spectra of MDX-Net models.
    pub fn mdx_net(shape: SpectrumShape) -> Self {
        Self {
            shape,
            layout: SpectrumLayout::ChannelsOfPlanes,
            silent_rows: Self::MDX_NET_SILENT_ROWS,
            scale: SpectrumScale::Sum,
            output: SpectrumOutput::Spectrum,
        }
    }

    /// Where the values of channel 0 (left) or 1 are.
    pub(super) fn strides(&self, channel: usize) -> ChannelStrides {
        let columns = self.shape.columns();
        let plane = self.shape.rows() * columns;
        match self.layout {
            SpectrumLayout::ChannelsOfPlanes => ChannelStrides {
                real: 2 * channel * plane,
                imaginary: (2 * channel + 1) * plane,
                row: columns,
                column: 1,
            },
            SpectrumLayout::PartsOfPlanes => ChannelStrides {
                real: channel * plane,
                imaginary: (2 + channel) * plane,
                row: columns,
                column: 1,
            },
            SpectrumLayout::ChannelsOfPairs => ChannelStrides {
                real: 2 * channel * plane,
                imaginary: 2 * channel * plane + 1,
                row: 2 * columns,
                column: 2,
            },
            SpectrumLayout::RowsOfPairs => ChannelStrides {
                real: 2 * channel * columns,
                imaginary: 2 * channel * columns + 1,
                row: 4 * columns,
                column: 2,
            },
        }
    }

    /// Multiplies the `masks` of one stem by the chunk's `spectrum`.
    ///
    /// # Panics
    /// If either is not one chunk large.
    pub(super) fn apply_masks(&self, spectrum: &[f32], masks: &mut [f32]) {
        assert_eq!(spectrum.len(), self.shape.values(), "one chunk");
        assert_eq!(masks.len(), self.shape.values(), "one chunk");
        // Real and imaginary values are neighbors, or in planes of equal order: the pairs can be visited in the order
        // of memory, whatever the channel, row and column.
        let plane = self.shape.rows() * self.shape.columns();
        match self.layout {
            SpectrumLayout::ChannelsOfPairs | SpectrumLayout::RowsOfPairs => {
                for (x, mask) in spectrum.chunks_exact(2).zip(masks.chunks_exact_mut(2)) {
                    [mask[0], mask[1]] = product([x[0], x[1]], [mask[0], mask[1]]);
                }
            }
            SpectrumLayout::ChannelsOfPlanes => {
                for (x, mask) in spectrum
                    .chunks_exact(2 * plane)
                    .zip(masks.chunks_exact_mut(2 * plane))
                {
                    multiply_planes(x, mask);
                }
            }
            SpectrumLayout::PartsOfPlanes => multiply_planes(spectrum, masks),
        }
    }
}

/// The first half of each slice is real, the second one imaginary.
fn multiply_planes(spectrum: &[f32], masks: &mut [f32]) {
    let (x_real, x_imaginary) = spectrum.split_at(spectrum.len() / 2);
    let (real, imaginary) = masks.split_at_mut(spectrum.len() / 2);
    for (k, (real, imaginary)) in real.iter_mut().zip(imaginary).enumerate() {
        [*real, *imaginary] = product([x_real[k], x_imaginary[k]], [*real, *imaginary]);
    }
}

fn product([a, b]: [f32; 2], [c, d]: [f32; 2]) -> [f32; 2] {
    [a * c - b * d, a * d + b * c]
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::SpectrumSizes;
    use super::*;

    fn tensor(layout: SpectrumLayout) -> SpectrumTensor {
        let shape = SpectrumShape::new(SpectrumSizes {
            n_fft: 4,
            hop_frames: 2,
            rows: 3,
            columns: 4,
        });
        SpectrumTensor {
            layout,
            silent_rows: 0,
            ..SpectrumTensor::mdx_net(shape.unwrap())
        }
    }

    /// The index of a value by its place, as the name of the layout says.
    fn check(layout: SpectrumLayout, place: impl Fn([usize; 4]) -> usize) {
        let tensor = tensor(layout);
        let mut seen = vec![false; tensor.shape.values()];
        for channel in 0..2 {
            let strides = tensor.strides(channel);
            for (row, column, part) in (0..3).flat_map(|r| (0..4).flat_map(move |c| [(r, c, 0), (r, c, 1)])) {
                let first = [strides.real, strides.imaginary][part];
                let index = first + row * strides.row + column * strides.column;
                assert_eq!(index, place([channel, row, column, part]), "{layout:?}");
                seen[index] = true;
            }
        }
        assert!(seen.iter().all(|seen| *seen), "{layout:?}");
    }

    #[test]
    fn layouts_are_in_the_order_of_their_names() {
        check(SpectrumLayout::ChannelsOfPlanes, |[c, r, t, p]| {
            ((c * 2 + p) * 3 + r) * 4 + t
        });
        check(SpectrumLayout::PartsOfPlanes, |[c, r, t, p]| {
            ((p * 2 + c) * 3 + r) * 4 + t
        });
        check(SpectrumLayout::ChannelsOfPairs, |[c, r, t, p]| {
            ((c * 3 + r) * 4 + t) * 2 + p
        });
        check(SpectrumLayout::RowsOfPairs, |[c, r, t, p]| {
            ((r * 2 + c) * 4 + t) * 2 + p
        });
    }

    #[test]
    fn masks_multiply_as_complex_numbers_in_every_layout() {
        for layout in [
            SpectrumLayout::ChannelsOfPlanes,
            SpectrumLayout::PartsOfPlanes,
            SpectrumLayout::ChannelsOfPairs,
            SpectrumLayout::RowsOfPairs,
        ] {
            let tensor = tensor(layout);
            let value = |k: usize| (k as f32 * 0.7).sin();
            let spectrum: Vec<f32> = (0..48).map(value).collect();
            let masks: Vec<f32> = (100..148).map(value).collect();
            let mut products = masks.clone();
            tensor.apply_masks(&spectrum, &mut products);
            for channel in 0..2 {
                let strides = tensor.strides(channel);
                for at in (0..3).flat_map(|row| (0..4).map(move |column| (row, column))) {
                    let offset = at.0 * strides.row + at.1 * strides.column;
                    let (re, im) = (strides.real + offset, strides.imaginary + offset);
                    let expected = product([spectrum[re], spectrum[im]], [masks[re], masks[im]]);
                    assert_eq!([products[re], products[im]], expected, "{layout:?}");
                }
            }
        }
    }
}
