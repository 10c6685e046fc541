//! Puts overlapping chunks together again, with memory for one chunk only.
//!
//! Chunk starts are fixed, so after the chunk at s has been added everything before s + step is final.

use super::geometry::ChunkGrid;
use crate::audio::StereoBlock;

/// The sum of windowed chunks from the start of the latest one on, and the sum of their windows.
pub(super) struct OverlapAdder {
    step_frames: usize,
    grid: ChunkGrid,
    whole_window: Vec<f32>,
    sum: StereoBlock,
    weight: Vec<f32>,
}

impl OverlapAdder {
    /// An adder that expects the chunks of `grid` in order.
    pub(super) fn new(grid: ChunkGrid) -> Self {
        let chunk = grid.shape().chunk_frames();
        Self {
            step_frames: grid.step_frames(),
            grid,
            whole_window: grid.window(chunk),
            sum: StereoBlock::silence(chunk),
            weight: vec![0.0; chunk],
        }
    }

    /// Adds the next chunk, of which the first `covered` frames count, and writes the first `settled` frames
    /// of the sum, which no later chunk changes, to `out`.
    ///
    /// # Panics
    /// When `settled` is more than one step or more than `covered`.
    pub(super) fn add(&mut self, chunk: &StereoBlock, covered: usize, settled: usize, out: &mut StereoBlock) {
        assert!(
            settled <= self.step_frames && settled <= covered,
            "no later chunk may change what is given out"
        );
        let shorter;
        let window = if covered == self.whole_window.len() {
            &self.whole_window
        } else {
            shorter = self.grid.window(covered);
            &shorter
        };
        add_windowed(&mut self.sum.left, &chunk.left, window);
        add_windowed(&mut self.sum.right, &chunk.right, window);
        for (sum, weight) in self.weight.iter_mut().zip(window) {
            *sum += weight;
        }
        divide_into(&mut out.left, &self.sum.left[..settled], &self.weight);
        divide_into(&mut out.right, &self.sum.right[..settled], &self.weight);
        self.advance();
    }

    fn advance(&mut self) {
        for sums in [&mut self.sum.left, &mut self.sum.right, &mut self.weight] {
            let kept = sums.len() - self.step_frames;
            sums.copy_within(self.step_frames.., 0);
            sums[kept..].fill(0.0);
        }
    }
}

fn add_windowed(sum: &mut [f32], samples: &[f32], window: &[f32]) {
    for ((sum, sample), weight) in sum.iter_mut().zip(samples).zip(window) {
        *sum += sample * weight;
    }
}

/// The weight is 0 only at the first frame of the first chunk and past the song's end, both of which are cut away;
/// there the quotient is silence.
fn divide_into(out: &mut Vec<f32>, sum: &[f32], weight: &[f32]) {
    out.clear();
    out.extend(
        sum.iter()
            .zip(weight)
            .map(|(&sum, &weight)| if weight == 0.0 { 0.0 } else { sum / weight }),
    );
}
