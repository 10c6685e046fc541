//! Positions of chunks: the integer arithmetic of MDX-Net inference, without audio.
//!
//! The song x of N frames is extended to z = `[trim zeros | x | pad zeros]`, cut into overlapping chunks that
//! start every `step` frames, and recombined with a window. Everything here is exact and pure.

use std::f64::consts::PI;

/// Frames between two spectra. Every published MDX-Net model uses this hop.
pub const HOP_FRAMES: usize = 1024;

/// The three sizes that define a spectrum shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpectrumSizes {
    /// Length of one transform.
    pub n_fft: usize,
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

/// The shape of a model's input spectrum, and of the transform that produces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpectrumShape(SpectrumSizes);

/// Why a transform and a model do not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The transform length is odd, or so short that neighboring windows leave gaps.
    #[error("n_fft must be even and at least {} (twice the hop of {HOP_FRAMES}), found {n_fft}", 2 * HOP_FRAMES)]
    TransformTooShort {
        /// The requested length.
        n_fft: usize,
    },
    /// A chunk would be no longer than one transform.
    #[error(
        "n_fft must be below {HOP_FRAMES} x (T - 1) = {chunk}, found {n_fft}: the model takes too few frames (T)"
    )]
    ChunkTooShort {
        /// The requested length.
        n_fft: usize,
        /// Frames of a chunk with this model.
        chunk: usize,
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
    /// The largest accepted T: 8,192 columns are a chunk of 190 s, 32 times that of any published model.
    const MAX_COLUMNS: usize = 8_192;
    /// The longest accepted transform: four times the longest of any published model.
    const MAX_N_FFT: usize = 65_536;

    /// Validates the sizes of a spectrum.
    ///
    /// # Errors
    /// If no chunk can have this shape.
    pub fn new(sizes: SpectrumSizes) -> Result<Self, ShapeError> {
        let SpectrumSizes { n_fft, rows, columns } = sizes;
        if columns > Self::MAX_COLUMNS || n_fft > Self::MAX_N_FFT {
            return Err(ShapeError::TooLarge { rows, columns, n_fft });
        }
        if rows == 0 {
            return Err(ShapeError::NoRows);
        }
        if !n_fft.is_multiple_of(2) || n_fft < 2 * HOP_FRAMES {
            return Err(ShapeError::TransformTooShort { n_fft });
        }
        let available = n_fft / 2 + 1;
        if rows > available {
            return Err(ShapeError::TooManyRows {
                rows,
                n_fft,
                available,
            });
        }
        let chunk = HOP_FRAMES * columns.saturating_sub(1);
        if n_fft >= chunk {
            return Err(ShapeError::ChunkTooShort { n_fft, chunk });
        }
        Ok(Self(sizes))
    }

    /// Length of one transform.
    pub fn n_fft(&self) -> usize {
        self.0.n_fft
    }

    /// F: the rows (frequencies from 0 up) of the model's input.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// T: the columns (points in time) of the model's input.
    pub fn columns(&self) -> usize {
        self.0.columns
    }

    /// Floats in one spectrum: 4 (left and right, real and imaginary) x F x T.
    pub fn values(&self) -> usize {
        4 * self.0.rows * self.0.columns
    }

    /// Frames of one chunk: hop x (T - 1).
    pub fn chunk_frames(&self) -> usize {
        HOP_FRAMES * (self.0.columns - 1)
    }

    /// Frames of silence before the song.
    pub fn trim_frames(&self) -> usize {
        self.0.n_fft / 2
    }

    /// Frames that each chunk adds if chunks do not overlap; this determines the silence after the song.
    fn generated_frames(&self) -> usize {
        self.chunk_frames() - self.0.n_fft
    }

    /// Frames of z for a song of `song_frames`: trim + N + pad, pad = gen + trim - (N mod gen).
    pub fn padded_frames(&self, song_frames: u64) -> u64 {
        let (trim, generated) = (self.trim_frames() as u64, self.generated_frames() as u64);
        trim + song_frames + generated + trim - song_frames % generated
    }
}

/// The overlap of neighboring chunks, as a fraction of a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap(f64);

/// An overlap that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum OverlapError {
    /// Out of range: at 0.99, every second is already computed 100 times.
    #[error("overlap must be at least 0 and at most {max}, found {0}", max = Overlap::MAX.fraction())]
    OutOfRange(f64),
    /// Neighboring windows would touch only where they are 0.
    #[error("overlap {overlap} is less than two frames of a chunk of {chunk}; use 0 or at least {}", 2.0 / *chunk as f64)]
    TooSmall {
        /// The requested fraction.
        overlap: f64,
        /// Frames of a chunk.
        chunk: usize,
    },
}

impl Overlap {
    /// UVR's default.
    pub const DEFAULT: Self = Self(0.25);

    /// The maximum: UVR's own.
    pub const MAX: Self = Self(0.99);

    /// An overlap of `fraction` of a chunk.
    ///
    /// # Errors
    /// If `fraction` is not in `0 <= fraction <= 0.99`.
    pub fn new(fraction: f64) -> Result<Self, OverlapError> {
        if (0.0..=Self::MAX.0).contains(&fraction) {
            Ok(Self(fraction))
        } else {
            Err(OverlapError::OutOfRange(fraction))
        }
    }

    /// The overlap as a fraction of a chunk.
    pub const fn fraction(&self) -> f64 {
        self.0
    }
}

/// Chunk positions in z. Starts are fixed, so a stream and a complete file are cut identically.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkGrid {
    shape: SpectrumShape,
    step_frames: usize,
    windowed: bool,
}

impl ChunkGrid {
    /// The grid for chunks of `shape`, each `trunc((1 - overlap) * chunk)` frames after the last.
    ///
    /// # Errors
    /// If chunks of this length cannot have this overlap.
    pub fn new(shape: SpectrumShape, overlap: Overlap) -> Result<Self, OverlapError> {
        let chunk = shape.chunk_frames();
        let overlap = overlap.fraction();
        if overlap > 0.0 && overlap < 2.0 / chunk as f64 {
            return Err(OverlapError::TooSmall { overlap, chunk });
        }
        // Truncation in IEEE doubles is part of UVR's algorithm: 0.8 gives 52223 of 261120, not 52224.
        let step_frames = ((1.0 - overlap) * chunk as f64) as usize;
        Ok(Self {
            shape,
            step_frames,
            windowed: overlap > 0.0,
        })
    }

    /// The shape of a chunk's spectrum.
    pub fn shape(&self) -> SpectrumShape {
        self.shape
    }

    /// Frames between the starts of two chunks.
    pub fn step_frames(&self) -> usize {
        self.step_frames
    }

    /// Where in z chunk `index` starts.
    pub fn start(&self, index: u64) -> u64 {
        index * self.step_frames as u64
    }

    /// Number of chunks needed for a song of `song_frames`: those that start before its last frame in z.
    /// UVR's algorithm also computes a few chunks over the padding, whose results it cuts off.
    pub fn chunks(&self, song_frames: u64) -> u64 {
        (self.shape.trim_frames() as u64 + song_frames).div_ceil(self.step_frames as u64)
    }

    /// The window of a chunk with `covered` frames inside z: a symmetric Hann window of that length (1 for a
    /// single frame), or ones where chunks do not overlap.
    pub fn window(&self, covered: usize) -> Vec<f64> {
        if !self.windowed || covered == 1 {
            return vec![1.0; covered];
        }
        let last = (covered - 1) as f64;
        (0..covered)
            .map(|k| 0.5 - 0.5 * (2.0 * PI * k as f64 / last).cos())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> SpectrumShape {
        SpectrumShape::new(SpectrumSizes {
            n_fft: 6144,
            rows: 2048,
            columns: 256,
        })
        .unwrap()
    }

    #[test]
    fn steps_are_truncated_in_doubles() {
        let step = |overlap| {
            ChunkGrid::new(shape(), Overlap::new(overlap).unwrap())
                .unwrap()
                .step_frames()
        };
        assert_eq!(step(0.0), 261_120);
        assert_eq!(step(0.25), 195_840);
        assert_eq!(step(0.8), 52_223);
        assert_eq!(step(0.9), 26_111);
    }

    #[test]
    fn padding_reaches_past_the_last_generated_frame() {
        let shape = shape();
        let generated = 261_120 - 6144;
        assert_eq!(shape.padded_frames(1), 3072 + 1 + generated + 3072 - 1);
        assert_eq!(
            shape.padded_frames(generated),
            3072 + generated + generated + 3072
        );
    }

    #[test]
    fn shapes_that_fit_no_chunk_are_refused_by_name() {
        let refused =
            |n_fft, rows, columns| SpectrumShape::new(SpectrumSizes { n_fft, rows, columns }).unwrap_err();
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
    }

    #[test]
    fn overlaps_that_leave_gaps_are_refused() {
        assert!(matches!(Overlap::new(1.0), Err(OverlapError::OutOfRange(_))));
        assert!(matches!(Overlap::new(0.991), Err(OverlapError::OutOfRange(_))));
        assert!(matches!(Overlap::new(-0.1), Err(OverlapError::OutOfRange(_))));
        assert!(matches!(Overlap::new(f64::NAN), Err(OverlapError::OutOfRange(_))));
        let grid = |overlap| ChunkGrid::new(shape(), Overlap::new(overlap).unwrap());
        assert!(matches!(grid(1e-9), Err(OverlapError::TooSmall { .. })));
        // The shortest chunk is longer than the shortest transform, of 2,048 frames.
        assert_eq!(grid(0.99).unwrap().step_frames(), 2_611);
    }

    #[test]
    fn windows_are_symmetric_and_ones_without_overlap() {
        let overlapping = ChunkGrid::new(shape(), Overlap::DEFAULT).unwrap();
        assert_eq!(overlapping.window(1), [1.0]);
        assert_eq!(overlapping.window(3), [0.0, 1.0, 0.0]);
        let plain = ChunkGrid::new(shape(), Overlap::new(0.0).unwrap()).unwrap();
        assert_eq!(plain.window(3), [1.0; 3]);
    }
}
