//! Shapes of spectra, and the lengths of the chunks that they describe.

/// Frames between two spectra of an MDX-Net model. Every published one uses this hop.
pub const HOP_FRAMES: usize = 1024;

/// The sizes that define a spectrum shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpectrumSizes {
    /// Length of one transform.
    pub n_fft: usize,
    /// Frames between two transforms.
    pub hop_frames: usize,
    /// F: rows.
    pub rows: usize,
    /// T: columns.
    pub columns: usize,
}

/// The sizes that a model's file fixes; its parameters must give the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FixedSizes {
    /// F: rows.
    pub rows: Option<usize>,
    /// T: columns.
    pub columns: Option<usize>,
}

/// The shape of a model's spectra, and of the transform that produces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpectrumShape {
    sizes: SpectrumSizes,
    chunk_frames: usize,
}

/// Why a transform and a model do not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The hop is 0.
    #[error("the hop must be at least 1 frame, found 0")]
    NoHop,
    /// The transform length is odd, or so short that neighboring windows leave gaps.
    #[error("n_fft must be even and at least {} (twice the hop of {hop_frames}), found {n_fft}", 2 * hop_frames)]
    TransformTooShort {
        /// The requested length.
        n_fft: usize,
        /// The requested hop.
        hop_frames: usize,
    },
    /// A chunk would be no longer than one transform.
    #[error(
        "n_fft must be below {hop_frames} x (T - 1) = {chunk}, found {n_fft}: the model takes too few frames (T)"
    )]
    ChunkTooShort {
        /// The requested length.
        n_fft: usize,
        /// The requested hop.
        hop_frames: usize,
        /// Frames of a chunk with this model.
        chunk: usize,
    },
    /// A chunk of this length has another number of columns.
    #[error(
        "a chunk of {chunk} frames has T = {found} columns with a hop of {hop_frames}, but the model takes {columns}"
    )]
    ChunkLength {
        /// The requested frames.
        chunk: usize,
        /// The requested hop.
        hop_frames: usize,
        /// T of such a chunk.
        found: usize,
        /// T of the model.
        columns: usize,
    },
    /// Chunks of another length than any model has.
    #[error(
        "chunks have at least {} and at most {} frames, found {frames}",
        SpectrumShape::MIN_CHUNK_FRAMES,
        SpectrumShape::MAX_CHUNK_FRAMES
    )]
    ChunkFrames {
        /// The requested frames.
        frames: usize,
    },
    /// The model takes more rows than the transform has.
    #[error("the model takes F = {rows} rows, but n_fft = {n_fft} gives only {available}")]
    TooManyRows {
        /// F of the model.
        rows: usize,
        /// Length of the transform.
        n_fft: usize,
        /// n_fft / 2 + 1.
        available: usize,
    },
    /// The model takes no rows.
    #[error("the model takes no rows (F = 0)")]
    NoRows,
    /// Neither the model's file nor its parameters give the number of rows.
    #[error("the model's file does not fix F and its parameters have no `mdx_dim_f_set`")]
    UnknownRows,
    /// The model's file and its parameters disagree.
    #[error("the model's file has {what} = {in_model}, its parameters have {key} = {given}")]
    Disagreement {
        /// The name of the size.
        what: &'static str,
        /// The name of the parameter.
        key: &'static str,
        /// The value in the file.
        in_model: usize,
        /// The value in the parameters.
        given: usize,
    },
    /// A spectrum would not fit in memory.
    #[error("F = {rows}, T = {columns} and n_fft = {n_fft} are larger than any known model's")]
    TooLarge {
        /// F of the model.
        rows: usize,
        /// T of the model.
        columns: usize,
        /// Length of the transform.
        n_fft: usize,
    },
}

impl SpectrumShape {
    /// The largest accepted T: 8,192 columns of 1,024 frames are a chunk of 190 s, 32 times that of any published
    /// MDX-Net model.
    const MAX_COLUMNS: usize = 8_192;
    /// The longest accepted chunk, 190 s.
    pub(super) const MAX_CHUNK_FRAMES: usize = Self::MAX_COLUMNS * HOP_FRAMES;
    /// The shortest accepted chunk of samples: a step remains with the largest overlap.
    pub(super) const MIN_CHUNK_FRAMES: usize = 1024;
    /// The longest accepted transform: four times the longest of any published model.
    const MAX_N_FFT: usize = 65_536;

    /// Validates the sizes of a spectrum. A chunk has hop x (T - 1) frames.
    ///
    /// # Errors
    /// If no chunk can have this shape.
    pub fn new(sizes: SpectrumSizes) -> Result<Self, ShapeError> {
        let SpectrumSizes {
            n_fft,
            hop_frames,
            rows,
            columns,
        } = sizes;
        if columns > Self::MAX_COLUMNS || n_fft > Self::MAX_N_FFT {
            return Err(ShapeError::TooLarge { rows, columns, n_fft });
        }
        if hop_frames == 0 {
            return Err(ShapeError::NoHop);
        }
        if rows == 0 {
            return Err(ShapeError::NoRows);
        }
        if !n_fft.is_multiple_of(2) || n_fft / 2 < hop_frames {
            return Err(ShapeError::TransformTooShort { n_fft, hop_frames });
        }
        let available = n_fft / 2 + 1;
        if rows > available {
            return Err(ShapeError::TooManyRows {
                rows,
                n_fft,
                available,
            });
        }
        let chunk_frames = hop_frames * columns.saturating_sub(1);
        if chunk_frames > Self::MAX_CHUNK_FRAMES {
            return Err(ShapeError::ChunkFrames { frames: chunk_frames });
        }
        if n_fft >= chunk_frames {
            return Err(ShapeError::ChunkTooShort {
                n_fft,
                hop_frames,
                chunk: chunk_frames,
            });
        }
        Ok(Self { sizes, chunk_frames })
    }

    /// The same shape for chunks of `chunk_frames`, which need not be a multiple of the hop: T is 1 + the whole hops
    /// in a chunk.
    ///
    /// # Errors
    /// If a chunk of this length has another number of columns.
    pub fn with_chunk_frames(self, chunk_frames: usize) -> Result<Self, ShapeError> {
        let SpectrumSizes {
            hop_frames, columns, ..
        } = self.sizes;
        let found = chunk_frames / hop_frames + 1;
        if found != columns {
            return Err(ShapeError::ChunkLength {
                chunk: chunk_frames,
                hop_frames,
                found,
                columns,
            });
        }
        Ok(Self { chunk_frames, ..self })
    }

    /// The shape of a chunk of half the length, if that is long enough.
    pub(super) fn halved(&self) -> Option<Self> {
        let columns = self.sizes.columns.div_ceil(2);
        Self::new(SpectrumSizes {
            columns,
            ..self.sizes
        })
        .ok()
    }

    /// Length of one transform.
    pub fn n_fft(&self) -> usize {
        self.sizes.n_fft
    }

    /// Frames between two transforms.
    pub fn hop_frames(&self) -> usize {
        self.sizes.hop_frames
    }

    /// F: the rows (frequencies from 0 up) of the model's input.
    pub fn rows(&self) -> usize {
        self.sizes.rows
    }

    /// T: the columns (points in time) of the model's input.
    pub fn columns(&self) -> usize {
        self.sizes.columns
    }

    /// Floats in one spectrum: 4 (left and right, real and imaginary) x F x T.
    pub fn values(&self) -> usize {
        4 * self.rows() * self.columns()
    }

    /// Frames of one chunk.
    pub fn chunk_frames(&self) -> usize {
        self.chunk_frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(
        n_fft: usize,
        hop_frames: usize,
        rows: usize,
        columns: usize,
    ) -> Result<SpectrumShape, ShapeError> {
        SpectrumShape::new(SpectrumSizes {
            n_fft,
            hop_frames,
            rows,
            columns,
        })
    }

    #[test]
    fn shapes_that_fit_no_chunk_are_refused_by_name() {
        let refused = |n_fft, rows, columns| shape(n_fft, HOP_FRAMES, rows, columns).unwrap_err();
        assert!(matches!(
            refused(6144, 4000, 256),
            ShapeError::TooManyRows { available: 3073, .. }
        ));
        assert!(matches!(
            refused(1024, 100, 256),
            ShapeError::TransformTooShort { .. }
        ));
        assert!(matches!(
            refused(4097, 100, 256),
            ShapeError::TransformTooShort { .. }
        ));
        assert!(matches!(
            refused(4096, 100, 5),
            ShapeError::ChunkTooShort { chunk: 4096, .. }
        ));
        assert!(matches!(
            refused(4096, 100, 0),
            ShapeError::ChunkTooShort { chunk: 0, .. }
        ));
        assert!(matches!(refused(4096, 0, 256), ShapeError::NoRows));
        assert!(matches!(refused(4096, 100, 1 << 40), ShapeError::TooLarge { .. }));
        assert!(matches!(shape(2048, 0, 1025, 801), Err(ShapeError::NoHop)));
        assert!(matches!(
            shape(2048, usize::MAX, 1025, 801),
            Err(ShapeError::TransformTooShort { .. })
        ));
    }

    #[test]
    fn a_chunk_is_halved_until_it_is_no_longer_than_one_transform() {
        let halves = |shape: SpectrumShape| {
            let halves = std::iter::successors(Some(shape), SpectrumShape::halved);
            halves.map(|shape| shape.columns()).collect::<Vec<_>>()
        };
        assert_eq!(
            halves(shape(6144, HOP_FRAMES, 2048, 256).unwrap()),
            [256, 128, 64, 32, 16, 8]
        );
        // 8 s and 4 s.
        assert_eq!(halves(shape(2048, 441, 1025, 801).unwrap())[..2], [801, 401]);
    }

    #[test]
    fn a_chunk_may_end_between_two_hops() {
        let shape = shape(2048, 512, 1025, 345).unwrap();
        assert_eq!(shape.chunk_frames(), 176_128);
        assert_eq!(shape.with_chunk_frames(176_400).unwrap().chunk_frames(), 176_400);
        for chunk in [176_127, 176_640] {
            assert!(matches!(
                shape.with_chunk_frames(chunk),
                Err(ShapeError::ChunkLength { columns: 345, .. })
            ));
        }
    }
}
