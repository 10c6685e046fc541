//! Positions of chunks: the integer arithmetic of cutting a song and joining the model's outputs, without audio.
//!
//! The song x of N frames is extended to z, cut into overlapping chunks that start every `step` frames, and
//! recombined with a window. Everything here is exact and pure.

use std::f64::consts::PI;

use crate::audio::MAX_BLOCK_FRAMES;

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
    /// All chunks would start at the same frame.
    #[error("overlap {overlap} leaves no step between chunks of {chunk} frames; use less")]
    NoStep {
        /// The requested fraction.
        overlap: f64,
        /// Frames of a chunk.
        chunk: usize,
    },
}

impl Overlap {
    /// The default of UVR and Demucs.
    pub const DEFAULT: Self = Self(0.25);

    /// Each frame in two chunks, as RoFormers are usually run.
    pub const HALF: Self = Self(0.5);

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

    /// The overlap of chunks that start `step_frames` apart.
    ///
    /// # Errors
    /// If that is out of range.
    pub fn of_step(step_frames: usize, chunk_frames: usize) -> Result<Self, OverlapError> {
        if step_frames == chunk_frames {
            return Ok(Self(0.0));
        }
        // Half a frame more, so that the truncation in `ChunkGrid` gives the same step.
        Self::new(1.0 - (step_frames as f64 + 0.5) / chunk_frames as f64)
    }

    /// The overlap as a fraction of a chunk.
    pub const fn fraction(&self) -> f64 {
        self.0
    }
}

/// How a song is cut into chunks, and how the model's outputs for them are joined: as the program does that a model
/// was trained and measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunking {
    /// UVR's `demix` of MDX-Net models: z = `[n_fft/2 zeros | x | zeros]`, Hann windows.
    MdxNet {
        /// Length of the transform.
        n_fft: usize,
    },
    /// Demucs' `apply_model` (demucs/apply.py) without its random shifts: z = x, triangular windows. A chunk that
    /// reaches past the song's end is preceded by the audio before it (`TensorChunk.padded`), and only where there is
    /// none by zeros.
    Demucs,
    /// ZFTurbo's `demix` in its generic mode (utils/model_utils.py of Music-Source-Separation-Training), one chunk per
    /// run: z = x, mirrored at both ends if x is long enough; windows that fade in and out over a tenth of a chunk,
    /// except at the ends of z. A chunk that reaches past the end of z is completed by its own mirror image, or by
    /// zeros if less than half of it is inside z. Unlike there, a chunk that is the first and the last one does not
    /// fade at all, and without overlap none does.
    Roformer,
}

/// Whether a chunk is at an end of z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChunkEnds {
    /// It is the first chunk.
    pub(super) first: bool,
    /// No further chunk starts inside z.
    pub(super) last: bool,
}

/// Chunk positions in z. Starts are fixed, so a stream and a complete file are cut identically.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkGrid {
    chunking: Chunking,
    chunk_frames: usize,
    step_frames: usize,
    windowed: bool,
}

impl ChunkGrid {
    /// The grid for chunks of `chunk_frames`, each `trunc((1 - overlap) * chunk)` frames after the last.
    ///
    /// # Errors
    /// If chunks of this length cannot have this overlap.
    ///
    /// # Panics
    /// If a chunk of an MDX-Net model is no longer than its transform.
    pub fn new(chunking: Chunking, chunk_frames: usize, overlap: Overlap) -> Result<Self, OverlapError> {
        if let Chunking::MdxNet { n_fft } = chunking {
            assert!(n_fft < chunk_frames, "the shape of the spectra is checked");
        }
        let overlap = overlap.fraction();
        if overlap > 0.0 && overlap < 2.0 / chunk_frames as f64 {
            return Err(OverlapError::TooSmall {
                overlap,
                chunk: chunk_frames,
            });
        }
        // Truncation in IEEE doubles is part of UVR's algorithm: 0.8 gives 52223 of 261120, not 52224.
        let step_frames = ((1.0 - overlap) * chunk_frames as f64) as usize;
        if step_frames == 0 {
            return Err(OverlapError::NoStep {
                overlap,
                chunk: chunk_frames,
            });
        }
        Ok(Self {
            chunking,
            chunk_frames,
            step_frames,
            windowed: overlap > 0.0,
        })
    }

    /// How the chunks are cut and joined.
    pub fn chunking(&self) -> Chunking {
        self.chunking
    }

    /// Frames of a chunk.
    pub fn chunk_frames(&self) -> usize {
        self.chunk_frames
    }

    /// Frames between the starts of two chunks.
    pub fn step_frames(&self) -> usize {
        self.step_frames
    }

    /// Frames that two neighboring chunks share.
    fn shared_frames(&self) -> usize {
        self.chunk_frames - self.step_frames
    }

    /// Where in z chunk `index` starts.
    pub(super) fn start(&self, index: u64) -> u64 {
        index * self.step_frames as u64
    }

    /// Frames of the song that must be read, or all of a shorter one, before its first chunk is cut.
    pub(super) fn lookahead_frames(&self) -> u64 {
        match self.chunking {
            Chunking::MdxNet { .. } | Chunking::Demucs => 0,
            Chunking::Roformer => 2 * self.shared_frames() as u64 + 1,
        }
    }

    /// The most frames of a song that are kept to cut it.
    pub(super) fn kept_frames(&self) -> usize {
        let ahead = 2 * self.shared_frames() + self.chunk_frames;
        ahead + self.lookback_frames() + MAX_BLOCK_FRAMES
    }

    /// Frames before the start of the next chunk that it may still need.
    pub(super) fn lookback_frames(&self) -> usize {
        match self.chunking {
            Chunking::MdxNet { .. } => 0,
            Chunking::Demucs => self.chunk_frames.div_ceil(2),
            Chunking::Roformer => self.shared_frames(),
        }
    }

    /// Frames of z before the song. `song_frames` is the song's length, or any number of its frames that is at least
    /// [`lookahead_frames`](Self::lookahead_frames).
    pub(super) fn lead_frames(&self, song_frames: u64) -> usize {
        let shared = self.shared_frames();
        match self.chunking {
            Chunking::MdxNet { n_fft } => n_fft / 2,
            Chunking::Demucs => 0,
            Chunking::Roformer if song_frames > 2 * shared as u64 => shared,
            Chunking::Roformer => 0,
        }
    }

    /// Frames of z for a song of `song_frames`. For MDX-Net: trim + N + pad, pad = gen + trim - (N mod gen), where
    /// trim = n_fft / 2 and gen = chunk - n_fft.
    pub(super) fn padded_frames(&self, song_frames: u64) -> u64 {
        let lead = self.lead_frames(song_frames) as u64;
        match self.chunking {
            Chunking::MdxNet { n_fft } => {
                let generated = (self.chunk_frames - n_fft) as u64;
                lead + song_frames + generated + lead - song_frames % generated
            }
            Chunking::Demucs | Chunking::Roformer => lead + song_frames + lead,
        }
    }

    /// Number of chunks needed for a song of `song_frames`: those that start before its last frame in z.
    /// The algorithms also compute chunks over the padding, whose results they cut off.
    pub fn chunks(&self, song_frames: u64) -> u64 {
        (self.lead_frames(song_frames) as u64 + song_frames).div_ceil(self.step_frames as u64)
    }

    /// The window of a chunk whose first `covered` frames are inside z; ones where chunks do not overlap.
    pub(super) fn window(&self, covered: usize, ends: ChunkEnds) -> Vec<f64> {
        if !self.windowed {
            return vec![1.0; covered];
        }
        let frames = 0..covered;
        match self.chunking {
            Chunking::MdxNet { .. } => symmetric_hann(covered),
            Chunking::Demucs => frames.map(|k| triangle(k, self.chunk_frames)).collect(),
            Chunking::Roformer => frames.map(|k| fades(k, self.chunk_frames, ends)).collect(),
        }
    }

    /// Whether a chunk inside z has the same window wherever it is.
    pub(super) fn has_plain_window(&self, covered: usize, ends: ChunkEnds) -> bool {
        covered == self.chunk_frames && (self.chunking != Chunking::Roformer || ends == ChunkEnds::default())
    }
}

/// A symmetric Hann window of this length; 1 for a single frame.
fn symmetric_hann(length: usize) -> Vec<f64> {
    if length == 1 {
        return vec![1.0];
    }
    let last = (length - 1) as f64;
    (0..length)
        .map(|k| 0.5 - 0.5 * (2.0 * PI * k as f64 / last).cos())
        .collect()
}

/// Demucs' transition weights: 1, 2, … up to the middle of a chunk and down to 1, divided by the largest.
fn triangle(k: usize, chunk_frames: usize) -> f64 {
    let largest = chunk_frames - chunk_frames / 2;
    (k + 1).min(chunk_frames - k) as f64 / largest as f64
}

/// From 0 to 1 over the first tenth of a chunk and back over the last one (`_getWindowingArray`), except at the ends
/// of z.
fn fades(k: usize, chunk_frames: usize, ends: ChunkEnds) -> f64 {
    let fade = chunk_frames / 10;
    // A fade of one frame is its start.
    let last = fade.saturating_sub(1).max(1) as f64;
    let from_end = chunk_frames - 1 - k;
    if k < fade && !ends.first {
        k as f64 / last
    } else if from_end < fade && !ends.last {
        from_end as f64 / last
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 261_120;
    const MDX: Chunking = Chunking::MdxNet { n_fft: 6144 };

    fn grid(chunking: Chunking, chunk_frames: usize, overlap: f64) -> ChunkGrid {
        ChunkGrid::new(chunking, chunk_frames, Overlap::new(overlap).unwrap()).unwrap()
    }

    #[test]
    fn steps_are_truncated_in_doubles() {
        let step = |overlap| grid(MDX, CHUNK, overlap).step_frames();
        assert_eq!(step(0.0), 261_120);
        assert_eq!(step(0.25), 195_840);
        assert_eq!(step(0.8), 52_223);
        assert_eq!(step(0.9), 26_111);
    }

    #[test]
    fn padding_reaches_past_the_last_generated_frame() {
        let grid = grid(MDX, CHUNK, 0.25);
        let generated = 261_120 - 6144;
        assert_eq!(grid.padded_frames(1), 3072 + 1 + generated + 3072 - 1);
        assert_eq!(grid.padded_frames(generated), 3072 + generated + generated + 3072);
    }

    #[test]
    fn only_songs_longer_than_both_mirrors_are_mirrored() {
        let grid = grid(Chunking::Roformer, 352_800, 0.5);
        assert_eq!(
            (grid.lead_frames(352_800), grid.padded_frames(352_800)),
            (0, 352_800)
        );
        assert_eq!(grid.lead_frames(grid.lookahead_frames()), 176_400);
        assert_eq!(grid.padded_frames(352_801), 352_801 + 2 * 176_400);
    }

    #[test]
    fn overlaps_that_leave_gaps_are_refused() {
        assert!(matches!(Overlap::new(1.0), Err(OverlapError::OutOfRange(_))));
        assert!(matches!(Overlap::new(0.991), Err(OverlapError::OutOfRange(_))));
        assert!(matches!(Overlap::new(-0.1), Err(OverlapError::OutOfRange(_))));
        assert!(matches!(Overlap::new(f64::NAN), Err(OverlapError::OutOfRange(_))));
        let small = ChunkGrid::new(MDX, CHUNK, Overlap::new(1e-9).unwrap());
        assert!(matches!(small, Err(OverlapError::TooSmall { .. })));
        let no_step = ChunkGrid::new(Chunking::Demucs, 99, Overlap::MAX);
        assert!(matches!(no_step, Err(OverlapError::NoStep { .. })));
        // The shortest chunk is longer than the shortest transform, of 2,048 frames.
        assert_eq!(grid(MDX, CHUNK, 0.99).step_frames(), 2_611);
    }

    #[test]
    fn windows_are_symmetric_and_ones_without_overlap() {
        let inside = ChunkEnds::default();
        let overlapping = grid(MDX, CHUNK, 0.25);
        assert_eq!(overlapping.window(1, inside), [1.0]);
        assert_eq!(overlapping.window(3, inside), [0.0, 1.0, 0.0]);
        for chunking in [MDX, Chunking::Demucs, Chunking::Roformer] {
            assert_eq!(grid(chunking, CHUNK, 0.0).window(3, inside), [1.0; 3]);
        }
    }

    #[test]
    fn windows_of_demucs_are_triangles() {
        let inside = ChunkEnds::default();
        assert_eq!(
            grid(Chunking::Demucs, 4, 0.5).window(4, inside),
            [0.5, 1.0, 1.0, 0.5]
        );
        let odd = grid(Chunking::Demucs, 5, 0.5).window(5, inside);
        assert_eq!(odd, [1.0, 2.0, 3.0, 2.0, 1.0].map(|weight| weight / 3.0));
    }

    #[test]
    fn windows_of_roformers_fade_except_at_the_ends_of_the_song() {
        let grid = grid(Chunking::Roformer, 30, 0.5);
        let window = |first, last| grid.window(30, ChunkEnds { first, last });
        let inside = window(false, false);
        assert_eq!(
            (&inside[..4], &inside[26..]),
            (&[0.0, 0.5, 1.0, 1.0][..], &[1.0, 1.0, 0.5, 0.0][..])
        );
        assert_eq!(window(true, false)[..3], [1.0; 3]);
        assert_eq!(window(true, false)[27..], [1.0, 0.5, 0.0]);
        assert_eq!(window(false, true)[27..], [1.0; 3]);
        assert_eq!(window(true, true), [1.0; 30]);
    }
}
