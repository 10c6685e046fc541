//! Output of the file readers: samples as stored, and how to mix them to stereo.

use super::downmix::Downmix;

/// A block of samples with the file's own rate and channels.
#[derive(Default)]
pub(super) struct RawBlock {
    /// Interleaved samples.
    pub(super) samples: Vec<f32>,
    /// The mix to stereo; the reader sets it before the first samples.
    pub(super) downmix: Option<Downmix>,
}

impl RawBlock {
    pub(super) fn set_downmix(&mut self, downmix: &Downmix) {
        if self.downmix.as_ref() != Some(downmix) {
            self.downmix = Some(downmix.clone());
        }
    }
}
