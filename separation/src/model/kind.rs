//! The kinds of tensor contracts, and which of them the tensors of a file fit.

use serde::Deserialize;

use super::interface::{Interface, TensorInfo};
use crate::engine::ChunkTensor;

/// A kind of tensor contract: the order of the axes of a model's inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContractKind {
    /// Spectra to the spectra of one stem, as UVR's MDX-Net models.
    MdxNet,
    /// The same to those of several stems.
    Mdx23c,
    /// Samples to samples.
    Waveform,
    /// Real and imaginary parts of spectra in tensors of their own.
    RealImaginary,
    /// Real and imaginary parts as the last axis.
    Interleaved,
    /// The same, with the channels of each row next to one another.
    InterleavedRows,
}

/// One axis of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Batch,
    Stems,
    /// Of this size.
    Of(usize),
    Rows,
    /// Rows of both channels.
    RowsOfChannels,
    Columns,
    Frames,
}

use Axis::{Batch, Columns, Frames, Of, Rows, RowsOfChannels, Stems};

/// The sizes that the tensors of a file fix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FileSizes {
    /// Whether the file takes one chunk per run.
    pub(super) fixed_batch: bool,
    /// S, if the outputs have an axis of stems and the file fixes its size.
    pub(super) stems: Option<usize>,
    /// Whether the outputs have an axis of stems.
    pub(super) has_stem_axis: bool,
    /// F.
    pub(super) rows: Option<usize>,
    /// T.
    pub(super) columns: Option<usize>,
    /// N.
    pub(super) frames: Option<usize>,
}

impl ContractKind {
    /// All kinds.
    pub(super) const ALL: [Self; 6] = [
        Self::MdxNet,
        Self::Mdx23c,
        Self::Waveform,
        Self::RealImaginary,
        Self::Interleaved,
        Self::InterleavedRows,
    ];

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The value of the key `contract` in a sidecar.
    pub fn name(self) -> &'static str {
        match self {
            Self::MdxNet => "mdx-net",
            Self::Mdx23c => "mdx23c",
            Self::Waveform => "waveform",
            Self::RealImaginary => "real-imaginary",
            Self::Interleaved => "interleaved",
            Self::InterleavedRows => "interleaved-rows",
        }
    }

    /// Its tensors, for errors.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::MdxNet => "[batch, 4, F, T] -> the same",
            Self::Mdx23c => "[batch, 4, F, T] -> [batch, S, 4, F, T]",
            Self::Waveform => "[batch, 2, N] -> [batch, S, 2, N]",
            Self::RealImaginary => "two of [batch, 2, F, T] -> two of [batch, S, 2, F, T]",
            Self::Interleaved => "[batch, 2, F, T, 2] -> [batch, S, 2, F, T, 2]",
            Self::InterleavedRows => "[batch, 2 F, T, 2] -> [batch, S, 2 F, T, 2]",
        }
    }

    /// Number of inputs, and of outputs.
    pub(super) fn tensor_count(self) -> usize {
        match self {
            Self::RealImaginary => 2,
            _ => 1,
        }
    }

    /// The axes of an input.
    fn input_axes(self) -> &'static [Axis] {
        match self {
            Self::MdxNet | Self::Mdx23c => &[Batch, Of(4), Rows, Columns],
            Self::Waveform => &[Batch, Of(2), Frames],
            Self::RealImaginary => &[Batch, Of(2), Rows, Columns],
            Self::Interleaved => &[Batch, Of(2), Rows, Columns, Of(2)],
            Self::InterleavedRows => &[Batch, RowsOfChannels, Columns, Of(2)],
        }
    }

    /// The sizes of the axes of a tensor for one stem of one chunk.
    pub(super) fn sizes_of_values(self, chunk: ChunkTensor) -> Vec<usize> {
        let (rows, columns) = match chunk {
            ChunkTensor::Spectrum(spectrum) => (spectrum.shape.rows(), spectrum.shape.columns()),
            ChunkTensor::Waveform { .. } => (0, 0),
        };
        let axes = self.input_axes().iter();
        axes.filter_map(|axis| match axis {
            Batch | Stems => None,
            Of(size) => Some(*size),
            Rows => Some(rows),
            RowsOfChannels => Some(2 * rows),
            Columns => Some(columns),
            Frames => Some(chunk.chunk_frames()),
        })
        .collect()
    }

    /// The axes that an output may have: those of several stems, then those of one.
    fn output_axes(self) -> &'static [&'static [Axis]] {
        match self {
            Self::MdxNet => &[&[Batch, Of(4), Rows, Columns]],
            Self::Mdx23c => &[&[Batch, Stems, Of(4), Rows, Columns]],
            Self::Waveform => &[&[Batch, Stems, Of(2), Frames], &[Batch, Of(2), Frames]],
            Self::RealImaginary => &[
                &[Batch, Stems, Of(2), Rows, Columns],
                &[Batch, Of(2), Rows, Columns],
            ],
            Self::Interleaved => &[
                &[Batch, Stems, Of(2), Rows, Columns, Of(2)],
                &[Batch, Of(2), Rows, Columns, Of(2)],
            ],
            Self::InterleavedRows => &[
                &[Batch, Stems, RowsOfChannels, Columns, Of(2)],
                &[Batch, RowsOfChannels, Columns, Of(2)],
            ],
        }
    }

    /// The sizes that a file fixes, if its tensors are of this kind.
    pub(super) fn sizes(self, interface: &Interface) -> Option<FileSizes> {
        let count = self.tensor_count();
        if interface.inputs.len() != count || interface.outputs.len() != count {
            return None;
        }
        let mut sizes = FileSizes::default();
        let fits = |tensors: &[TensorInfo], axes: &[Axis], sizes: &mut FileSizes| {
            tensors.iter().all(|tensor| sizes.unify(axes, &tensor.sizes))
        };
        if !fits(&interface.inputs, self.input_axes(), &mut sizes) {
            return None;
        }
        self.output_axes().iter().find_map(|axes| {
            let mut sizes = FileSizes {
                has_stem_axis: axes.contains(&Stems),
                ..sizes
            };
            fits(&interface.outputs, axes, &mut sizes).then_some(sizes)
        })
    }
}

impl FileSizes {
    /// Takes over the sizes of one tensor; whether they fit the axes and those of other tensors.
    fn unify(&mut self, axes: &[Axis], sizes: &[Option<usize>]) -> bool {
        axes.len() == sizes.len()
            && axes.iter().zip(sizes).all(|(axis, size)| {
                let Some(size) = *size else { return true };
                match axis {
                    Batch => {
                        self.fixed_batch = true;
                        size == 1
                    }
                    Of(expected) => size == *expected,
                    Stems => agrees(&mut self.stems, size),
                    Rows => agrees(&mut self.rows, size),
                    // Four rows of channels are the four planes of an MDX-Net model.
                    RowsOfChannels => size > 4 && size.is_multiple_of(2) && agrees(&mut self.rows, size / 2),
                    Columns => agrees(&mut self.columns, size),
                    Frames => agrees(&mut self.frames, size),
                }
            })
    }
}

fn agrees(known: &mut Option<usize>, size: usize) -> bool {
    size > 0 && *known.get_or_insert(size) == size
}

#[cfg(test)]
mod tests {
    use super::super::interface::Element;
    use super::*;

    fn tensors(sizes: &[&[usize]]) -> Vec<TensorInfo> {
        let tensor = |sizes: &&[usize]| TensorInfo {
            name: String::new(),
            element: Element::Float32,
            // 0 stands for an open size.
            sizes: sizes.iter().map(|size| (*size > 0).then_some(*size)).collect(),
        };
        sizes.iter().map(tensor).collect()
    }

    #[track_caller]
    fn check(inputs: &[&[usize]], outputs: &[&[usize]], expected: &[ContractKind]) {
        let interface = Interface {
            inputs: tensors(inputs),
            outputs: tensors(outputs),
            ..Interface::default()
        };
        let fitting = ContractKind::ALL
            .into_iter()
            .filter(|kind| kind.sizes(&interface).is_some());
        assert_eq!(fitting.collect::<Vec<_>>(), expected, "{interface}");
    }

    #[test]
    fn public_exports_have_one_reading() {
        use ContractKind::*;
        check(&[&[0, 4, 3072, 256]], &[&[0, 4, 3072, 256]], &[MdxNet]);
        check(&[&[0, 4, 0, 0]], &[&[0, 4, 0, 0]], &[MdxNet]);
        check(&[&[1, 4, 4096, 256]], &[&[1, 2, 4, 4096, 256]], &[Mdx23c]);
        check(&[&[1, 2, 343_980]], &[&[1, 4, 2, 343_980]], &[Waveform]);
        check(&[&[0, 2, 352_800]], &[&[0, 2, 352_800]], &[Waveform]);
        let spectra: &[usize] = &[1, 2, 1025, 801];
        check(
            &[spectra; 2],
            &[&[1, 6, 2, 1025, 801], &[1, 6, 2, 1025, 801]],
            &[RealImaginary],
        );
        check(&[spectra; 2], &[spectra; 2], &[RealImaginary]);
        check(&[&[1, 2, 1025, 0, 2]], &[&[1, 1, 2, 1025, 0, 2]], &[Interleaved]);
        check(&[&[1, 2050, 1101, 2]], &[&[1, 2050, 1101, 2]], &[InterleavedRows]);
        check(&[&[1, 2050, 0, 2]], &[&[1, 1, 2050, 0, 2]], &[InterleavedRows]);
    }

    #[test]
    fn tensors_with_open_axes_can_have_two_readings() {
        check(
            &[&[0, 0, 0, 0]],
            &[&[0, 0, 0, 0]],
            &[ContractKind::MdxNet, ContractKind::InterleavedRows],
        );
    }

    #[test]
    fn other_tensors_have_none() {
        check(&[&[1, 2, 2049, 256]], &[&[1, 2, 2049, 256]], &[]);
        check(
            &[&[1, 2, 343_980], &[1, 4, 2048, 336]],
            &[&[1, 4, 2, 343_980], &[1, 4, 2, 343_980]],
            &[],
        );
        check(&[&[1, 2, 343_980]], &[&[1, 4, 2, 343_979]], &[]);
        check(&[&[2, 2, 343_980]], &[&[2, 4, 2, 343_980]], &[]);
        check(&[&[1, 2050, 501, 2]], &[&[1, 1, 3958, 501, 2]], &[]);
        check(&[&[1, 2, 0]], &[&[1, 4, 2]], &[]);
    }
}
