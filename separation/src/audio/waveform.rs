//! The outline of a stream for drawing it, in bounded memory.

use crate::audio::StereoBlock;

/// Slots held. A long stream fills at least half of them, 32 for each of 1,000 values: 65,536 x 4 bytes = 256 KiB.
const MAX_SLOTS: usize = 65_536;

/// The largest absolute samples of a stream whose length is not known before its end.
#[derive(Debug)]
pub struct Waveform {
    /// The largest absolute sample of each `slot_frames` frames.
    slots: Vec<f32>,
    /// A power of two. Doubles whenever the slots are full, and each two become one.
    slot_frames: u64,
    frames: u64,
}

impl Default for Waveform {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            slot_frames: 1,
            frames: 0,
        }
    }
}

impl Waveform {
    /// Takes the next frames.
    pub fn push(&mut self, block: &StereoBlock) {
        for (left, right) in block.left.iter().zip(&block.right) {
            let sample = left.abs().max(right.abs());
            if self.frames & (self.slot_frames - 1) == 0 {
                if self.slots.len() == MAX_SLOTS {
                    self.merge_slots();
                }
                self.slots.push(sample);
            } else if let Some(slot) = self.slots.last_mut() {
                *slot = slot.max(sample);
            }
            self.frames += 1;
        }
    }

    fn merge_slots(&mut self) {
        let (pairs, _) = self.slots.as_chunks::<2>();
        self.slots = pairs.iter().map(|[first, second]| first.max(*second)).collect();
        self.slot_frames *= 2;
    }

    /// Frames taken so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The largest absolute sample of each of `count` slices of equal length. A slice is at least one frame long, and
    /// its ends are exact to 1/32,768 of the stream. All values are 0 if there were no frames.
    pub fn peaks(&self, count: usize) -> Vec<f32> {
        // Slices as frames, rounded outwards to slots.
        let slot_of = |slice: usize| slice as u64 * self.frames / count as u64 / self.slot_frames;
        let end_of = |slice: usize| {
            let end = (slice as u64 + 1) * self.frames / count as u64;
            end.div_ceil(self.slot_frames).max(slot_of(slice) + 1)
        };
        let slice = |slice: usize| {
            let slots = self.slots.get(slot_of(slice) as usize..end_of(slice) as usize);
            slots.unwrap_or_default().iter().copied().fold(0.0, f32::max)
        };
        (0..count).map(slice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::MAX_BLOCK_FRAMES;

    fn waveform(samples: &[f32]) -> Waveform {
        let mut waveform = Waveform::default();
        // Uneven pieces, so that slots and pieces do not start together.
        for piece in samples.chunks(777) {
            waveform.push(&StereoBlock {
                left: piece.iter().map(|sample| -sample / 2.0).collect(),
                right: piece.to_vec(),
            });
        }
        waveform
    }

    #[test]
    fn each_value_is_the_largest_sample_of_its_slice_whatever_the_length() {
        // From a few frames to many more than slots.
        for frames in [1_usize, 3, 10, 999, 65_536, 65_537, 1_000_003] {
            let samples: Vec<f32> = (0..frames)
                .map(|n| ((n * 7_919) % 1_000) as f32 / 1_000.0)
                .collect();
            let waveform = waveform(&samples);
            assert_eq!(waveform.frames(), frames as u64);
            let peaks = waveform.peaks(10);
            let tolerance = frames / 32_768 + 1;
            for (slice, peak) in peaks.iter().enumerate() {
                let (start, end) = (
                    slice * frames / 10,
                    ((slice + 1) * frames / 10).max(slice * frames / 10 + 1),
                );
                let largest =
                    |range: std::ops::Range<usize>| samples[range].iter().copied().fold(0.0, f32::max);
                let wide = start.saturating_sub(tolerance)..frames.min(end + tolerance);
                assert!(
                    *peak >= largest(start..end) && *peak <= largest(wide),
                    "{frames} frames, slice {slice}"
                );
            }
        }
        assert_eq!(waveform(&[]).peaks(3), [0.0; 3]);
    }

    #[test]
    fn memory_does_not_grow_with_the_stream() {
        let mut waveform = Waveform::default();
        let mut block = StereoBlock::silence(MAX_BLOCK_FRAMES);
        block.left[5] = -0.5;
        // Two hours.
        let blocks = 2 * 3_600 * 44_100 / MAX_BLOCK_FRAMES;
        for _ in 0..blocks {
            waveform.push(&block);
        }
        assert_eq!(waveform.frames(), (blocks * MAX_BLOCK_FRAMES) as u64);
        assert!((MAX_SLOTS / 2..=MAX_SLOTS).contains(&waveform.slots.len()));
        assert_eq!(waveform.peaks(1_000), [0.5; 1_000]);
    }
}
