//! Combines overlapping chunks, in memory for one chunk.
//!
//! Chunk starts are fixed: after the chunk at s is added, everything before s + step is final.

use super::cutter::Chunk;
use super::geometry::{ChunkEnds, ChunkGrid};
use crate::audio::StereoBlock;

/// The sum of windowed chunks from the start of the latest one, and the sum of their windows.
pub(super) struct OverlapAdder {
    step_frames: usize,
    grid: ChunkGrid,
    full_window: Vec<f64>,
    /// Left and right, in doubles because a large overlap adds up hundreds of chunks.
    sums: [Vec<f64>; 2],
    weight: Vec<f64>,
}

impl OverlapAdder {
    /// An adder that expects the chunks of `grid` in order.
    pub(super) fn new(grid: ChunkGrid) -> Self {
        let chunk = grid.chunk_frames();
        Self {
            step_frames: grid.step_frames(),
            grid,
            full_window: grid.window(chunk, ChunkEnds::default()),
            sums: [vec![0.0; chunk], vec![0.0; chunk]],
            weight: vec![0.0; chunk],
        }
    }

    /// Adds the next chunk, whose samples are `samples`, and appends its final frames of the sum, which no later chunk
    /// changes, to `out`.
    ///
    /// # Panics
    /// If the final frames are more than one step or more than are covered.
    pub(super) fn add(&mut self, chunk: &Chunk, samples: &StereoBlock, out: &mut StereoBlock) {
        let &Chunk {
            covered,
            final_frames,
            ends,
            ..
        } = chunk;
        assert!(
            final_frames <= self.step_frames && final_frames <= covered,
            "later chunks must not change the returned frames"
        );
        let other;
        let window = if self.grid.has_plain_window(covered, ends) {
            &self.full_window
        } else {
            other = self.grid.window(covered, ends);
            &other
        };
        for (sum, samples) in self.sums.iter_mut().zip([&samples.left, &samples.right]) {
            add_windowed(sum, &samples[chunk.skipped..], window);
        }
        for (sum, weight) in self.weight.iter_mut().zip(window) {
            *sum += weight;
        }
        for (out, sum) in [&mut out.left, &mut out.right].into_iter().zip(&self.sums) {
            divide_into(out, &sum[..final_frames], &self.weight);
        }
        self.advance();
    }

    fn advance(&mut self) {
        for sums in self.sums.iter_mut().chain([&mut self.weight]) {
            let kept = sums.len() - self.step_frames;
            sums.copy_within(self.step_frames.., 0);
            sums[kept..].fill(0.0);
        }
    }
}

fn add_windowed(sum: &mut [f64], samples: &[f32], window: &[f64]) {
    for ((sum, sample), weight) in sum.iter_mut().zip(samples).zip(window) {
        *sum += f64::from(*sample) * weight;
    }
}

/// The weight is 0 only at the first frame of an MDX-Net model's first chunk and after the end of the song. Both are
/// cut off; there the quotient is set to silence.
fn divide_into(out: &mut Vec<f32>, sum: &[f64], weight: &[f64]) {
    let quotient = |(&sum, &weight): (&f64, &f64)| if weight == 0.0 { 0.0 } else { sum / weight };
    out.clear();
    out.extend(sum.iter().zip(weight).map(|pair| quotient(pair) as f32));
}
