//! Levels of songs and stems.

use std::time::Instant;

use super::SongError;
use crate::audio::{AudioError, StereoBlock, StereoSource};
use crate::engine::{Control, Level, LevelMeter, SeparateError};

/// The peak to which audio-separator scales songs and stems down.
pub(super) const AUDIO_SEPARATOR_PEAK: f32 = 0.9;

/// The gain that lowers audio of this peak to `limit`; 1 if it is not above.
pub(super) fn lowering_gain(peak: f32, limit: f32) -> f32 {
    if peak > limit { limit / peak } else { 1.0 }
}

/// The largest absolute sample of the rest of `source`.
pub(super) fn peak_of(source: &mut dyn StereoSource, control: &Control) -> Result<f32, SongError> {
    let mut peak = 0.0_f32;
    for_each_block(source, control, |block| peak = peak.max(block.peak()))?;
    Ok(peak)
}

/// The level of the rest of `source`.
pub(super) fn level_of(source: &mut dyn StereoSource, control: &Control) -> Result<Level, SongError> {
    let mut meter = LevelMeter::default();
    for_each_block(source, control, |block| meter.add(block))?;
    Ok(meter.level())
}

fn for_each_block(
    source: &mut dyn StereoSource,
    control: &Control,
    mut visit: impl FnMut(&StereoBlock),
) -> Result<(), SongError> {
    let mut block = StereoBlock::default();
    loop {
        control.check(Instant::now()).map_err(SeparateError::from)?;
        source.read(&mut block).map_err(SongError::Open)?;
        if block.is_empty() {
            return Ok(());
        }
        visit(&block);
    }
}

/// A source with a gain applied.
pub(super) struct Scaled<S> {
    pub(super) inner: S,
    pub(super) gain: f32,
}

impl<S: StereoSource> StereoSource for Scaled<S> {
    fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError> {
        self.inner.read(block)?;
        if self.gain != 1.0 {
            for sample in block.left.iter_mut().chain(&mut block.right) {
                *sample *= self.gain;
            }
        }
        Ok(())
    }

    fn expected_frames(&self) -> Option<u64> {
        self.inner.expected_frames()
    }

    fn is_length_estimated(&self) -> bool {
        self.inner.is_length_estimated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_audio_above_the_limit_is_scaled() {
        assert_eq!(lowering_gain(1.0, 1.0), 1.0);
        assert_eq!(lowering_gain(2.0, 1.0), 0.5);
        assert_eq!(lowering_gain(1.8, AUDIO_SEPARATOR_PEAK), 0.5);
    }
}
