//! Cuts a song into the chunks of a grid. Holds the audio of one chunk and what later chunks need again.

use std::time::Instant;

use super::control::Control;
use super::error::SeparateError;
use super::geometry::{ChunkEnds, ChunkGrid, Chunking};
use super::level::Level;
use crate::audio::{StereoBlock, StereoSource};

/// One chunk, without its samples.
pub(super) struct Chunk {
    /// Samples of the chunk before those that count.
    pub(super) skipped: usize,
    /// Frames of the chunk that are inside z.
    pub(super) covered: usize,
    /// Whether it is at an end of z.
    pub(super) ends: ChunkEnds,
    /// Frames from its start that no later chunk changes.
    pub(super) final_frames: usize,
    /// Those of the final frames that are before the song.
    pub(super) lead_frames: usize,
    /// The part of the song in this chunk that no earlier chunk had.
    pub(super) fresh: StereoBlock,
}

/// Cuts a song into the chunks of a grid.
pub(super) struct Cutter<'s> {
    grid: ChunkGrid,
    level: Option<Level>,
    source: &'s mut dyn StereoSource,
    control: &'s Control,
    /// The samples of the latest chunk.
    samples: StereoBlock,
    /// The part of the song that was read and is still needed.
    kept: StereoBlock,
    /// Where in the song `kept` starts.
    kept_start: u64,
    /// Frames of the song that were in a chunk.
    cut_frames: u64,
    block: StereoBlock,
    /// Frames of the song that were read.
    song_frames: u64,
    at_end: bool,
    index: u64,
}

impl<'s> Cutter<'s> {
    /// Cuts the song in `source`. A song with a `level` is normalized.
    pub(super) fn new(
        grid: ChunkGrid,
        level: Option<Level>,
        source: &'s mut dyn StereoSource,
        control: &'s Control,
    ) -> Self {
        Self {
            grid,
            level,
            source,
            control,
            samples: StereoBlock::default(),
            kept: StereoBlock::default(),
            kept_start: 0,
            cut_frames: 0,
            block: StereoBlock::default(),
            song_frames: 0,
            at_end: false,
            index: 0,
        }
    }

    /// The samples of the latest chunk, as the model takes them.
    pub(super) fn samples(&self) -> &StereoBlock {
        &self.samples
    }

    /// Whether all chunks were cut, as far as is known.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end && self.index == self.grid.chunks(self.song_frames)
    }

    /// Cuts the next chunk.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Chunk>, SeparateError> {
        self.fill(self.grid.lookahead_frames())?;
        let lead = self.grid.lead_frames(self.song_frames);
        let (chunk_frames, step_frames) = (self.grid.chunk_frames(), self.grid.step_frames());
        let start = self.grid.start(self.index);
        let end_in_song = (start + chunk_frames as u64).saturating_sub(lead as u64);
        self.fill(end_in_song)?;
        if self.is_at_end() {
            return Ok(None);
        }
        let padded_end = self.grid.padded_frames(self.song_frames);
        let (covered, final_frames) = if self.at_end {
            let song_end = lead as u64 + self.song_frames;
            (
                at_most(chunk_frames, padded_end - start),
                at_most(step_frames, song_end - start),
            )
        } else {
            (chunk_frames, step_frames)
        };
        let skipped = self.cut(start, lead, covered);
        let cut_frames = end_in_song.min(self.song_frames);
        let mut fresh = StereoBlock::default();
        self.append_kept(self.cut_frames, cut_frames, &mut fresh);
        self.cut_frames = cut_frames;
        self.index += 1;
        self.drop_passed(lead);
        Ok(Some(Chunk {
            skipped,
            covered,
            ends: ChunkEnds {
                first: start == 0,
                last: start + step_frames as u64 >= padded_end,
            },
            final_frames,
            lead_frames: at_most(final_frames, (lead as u64).saturating_sub(start)),
            fresh,
        }))
    }

    /// Reads until `frames` of the song were read, or to its end.
    fn fill(&mut self, frames: u64) -> Result<(), SeparateError> {
        while !self.at_end && self.song_frames < frames {
            self.control.check(Instant::now())?;
            self.source.read(&mut self.block).map_err(SeparateError::Source)?;
            self.song_frames += self.block.frames() as u64;
            self.kept.append(&self.block);
            self.at_end = self.block.is_empty();
        }
        if self.at_end && self.song_frames == 0 {
            return Err(SeparateError::Empty);
        }
        Ok(())
    }

    /// Sets the samples to those of the chunk at `start` in z, `covered` of which are inside z. Returns the number of
    /// samples before those that count.
    fn cut(&mut self, start: u64, lead: usize, covered: usize) -> usize {
        let chunk_frames = self.grid.chunk_frames();
        let (skipped, is_mirrored) = match self.grid.chunking() {
            Chunking::MdxNet { .. } => (0, false),
            Chunking::Demucs => ((chunk_frames - covered) / 2, false),
            Chunking::Roformer => (0, true),
        };
        let before_song = (lead + skipped) as u64;
        let before = at_most(chunk_frames, before_song.saturating_sub(start));
        let first = (start + before as u64) - before_song;
        let last = self.song_frames.min(first + (chunk_frames - before) as u64);
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        if is_mirrored {
            // x[-k] = x[k]
            self.append_frames((1..=before as u64).rev(), &mut samples);
        } else {
            append_silence(before, &mut samples);
        }
        self.append_kept(first, last, &mut samples);
        if is_mirrored {
            // x[N - 1 + k] = x[N - 1 - k]
            let after = covered.saturating_sub(samples.frames()) as u64;
            self.append_frames((1..=after).map(|k| self.song_frames - 1 - k), &mut samples);
            complete(&mut samples, chunk_frames);
        }
        if let Some(level) = self.level {
            let from = if is_mirrored { 0 } else { before };
            level.normalize(&mut samples.left[from..]);
            level.normalize(&mut samples.right[from..]);
        }
        append_silence(chunk_frames - samples.frames(), &mut samples);
        self.samples = samples;
        skipped
    }

    /// Appends the frames `first..last` of the song.
    fn append_kept(&self, first: u64, last: u64, samples: &mut StereoBlock) {
        let position = |frame: u64| (frame - self.kept_start) as usize;
        samples.append_range(&self.kept, position(first)..position(last));
    }

    /// Appends single frames of the song.
    fn append_frames(&self, frames: impl Iterator<Item = u64>, samples: &mut StereoBlock) {
        for frame in frames {
            let position = (frame - self.kept_start) as usize;
            samples.left.push(self.kept.left[position]);
            samples.right.push(self.kept.right[position]);
        }
    }

    /// Forgets the part of the song that no later chunk needs.
    fn drop_passed(&mut self, lead: usize) {
        let needed = self.grid.start(self.index);
        let needed = needed.saturating_sub((lead + self.grid.lookback_frames()) as u64);
        let passed = at_most(self.kept.frames(), needed.saturating_sub(self.kept_start));
        self.kept.left.drain(..passed);
        self.kept.right.drain(..passed);
        self.kept_start += passed as u64;
    }
}

/// Completes a chunk by its mirror image, if it is more than half there.
fn complete(samples: &mut StereoBlock, chunk_frames: usize) {
    let covered = samples.frames();
    if covered <= chunk_frames / 2 {
        return;
    }
    for k in 0..chunk_frames - covered {
        let mirrored = covered - 2 - k;
        samples.left.push(samples.left[mirrored]);
        samples.right.push(samples.right[mirrored]);
    }
}

fn append_silence(frames: usize, samples: &mut StereoBlock) {
    let frames = samples.frames() + frames;
    samples.left.resize(frames, 0.0);
    samples.right.resize(frames, 0.0);
}

fn at_most(limit: usize, frames: u64) -> usize {
    usize::try_from(frames).map_or(limit, |frames| frames.min(limit))
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Overlap;
    use super::*;
    use crate::audio::AudioError;

    /// A song of silence in blocks of this length.
    struct Silence {
        blocks_left: usize,
    }

    const BLOCK_FRAMES: usize = 1_000;

    impl StereoSource for Silence {
        fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError> {
            let frames = BLOCK_FRAMES.min(self.blocks_left * BLOCK_FRAMES);
            self.blocks_left = self.blocks_left.saturating_sub(1);
            *block = StereoBlock::silence(frames);
            Ok(())
        }

        fn expected_frames(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn only_what_later_chunks_need_is_kept() {
        let (chunk_frames, blocks) = (4_096, 1_000);
        for chunking in [
            Chunking::MdxNet { n_fft: 2048 },
            Chunking::Demucs,
            Chunking::Roformer,
        ] {
            let grid = ChunkGrid::new(chunking, chunk_frames, Overlap::new(0.75).unwrap()).unwrap();
            let mut source = Silence { blocks_left: blocks };
            let control = Control::default();
            let mut cutter = Cutter::new(grid, None, &mut source, &control);
            let mut fresh_frames = 0;
            while let Some(chunk) = cutter.next_chunk().unwrap() {
                fresh_frames += chunk.fresh.frames();
                // Two mirrors of three quarters of a chunk, and a block.
                assert!(
                    cutter.kept.frames() <= 2 * chunk_frames + BLOCK_FRAMES,
                    "{chunking:?}"
                );
                assert_eq!(cutter.samples().frames(), chunk_frames, "{chunking:?}");
            }
            assert_eq!(fresh_frames, blocks * BLOCK_FRAMES, "{chunking:?}");
        }
    }
}
