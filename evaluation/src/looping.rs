//! Makes long songs by repeating short ones.

use anyhow::{Result, ensure};
use separation::audio::{StereoBlock, StereoSink, StereoSource};

/// Writes exactly `frames` frames, repeating the song that `open` opens, block by block.
///
/// # Errors
/// If the song cannot be read, is empty, or cannot be written.
pub fn repeat<S: StereoSource>(
    mut open: impl FnMut() -> Result<S>,
    frames: u64,
    sink: &mut dyn StereoSink,
) -> Result<()> {
    let mut left = frames;
    while left > 0 {
        let written = copy(&mut open()?, left, sink)?;
        ensure!(written > 0, "the song is empty");
        left -= written;
    }
    Ok(())
}

/// Copies up to `most` frames and returns their number.
fn copy(source: &mut dyn StereoSource, most: u64, sink: &mut dyn StereoSink) -> Result<u64> {
    let mut block = StereoBlock::default();
    let mut left = most;
    while left > 0 {
        source.read(&mut block)?;
        if block.is_empty() {
            break;
        }
        if let Ok(fitting) = usize::try_from(left) {
            block.left.truncate(fitting);
            block.right.truncate(fitting);
        }
        sink.write(&block)?;
        left -= block.frames() as u64;
    }
    Ok(most - left)
}

#[cfg(test)]
mod tests {
    use separation::audio::{AudioError, UnpublishedFile};

    use super::*;
    use crate::sdr::tests::Samples;

    #[derive(Default)]
    struct Written(Vec<f32>);

    impl StereoSink for Written {
        fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
            self.0.extend_from_slice(&block.left);
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
            unreachable!("the caller finishes the file")
        }
    }

    fn repeated(song: &[f32], frames: u64) -> Result<Vec<f32>> {
        let mut written = Written::default();
        let open = || {
            Ok(Samples {
                samples: song.to_vec(),
                block_frames: 2,
            })
        };
        repeat(open, frames, &mut written)?;
        Ok(written.0)
    }

    #[test]
    fn a_song_is_repeated_to_the_exact_length() {
        let song = [1.0, 2.0, 3.0];
        assert_eq!(repeated(&song, 7).unwrap(), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
        assert_eq!(repeated(&song, 2).unwrap(), [1.0, 2.0]);
        assert_eq!(repeated(&song, 0).unwrap(), Vec::<f32>::new());
    }

    #[test]
    fn an_empty_song_is_refused() {
        assert_eq!(repeated(&[], 1).unwrap_err().to_string(), "the song is empty");
    }
}
