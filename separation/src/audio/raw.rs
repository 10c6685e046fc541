//! What the readers of files hand over: samples as they are, and how to mix them to stereo.

use super::downmix::Downmix;

/// A stretch of samples as the file has them.
#[derive(Default)]
pub(super) struct RawBlock {
    /// Interleaved samples.
    pub(super) samples: Vec<f32>,
    /// How they are mixed to stereo; the reader sets it before the first samples.
    pub(super) downmix: Option<Downmix>,
}

impl RawBlock {
    pub(super) fn set_downmix(&mut self, downmix: &Downmix) {
        if self.downmix.as_ref() != Some(downmix) {
            self.downmix = Some(downmix.clone());
        }
    }
}
