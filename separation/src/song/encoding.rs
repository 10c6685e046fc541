//! Encodes each stem on its own thread, in parallel with the separation.

use std::io;
use std::path::PathBuf;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::SongError;
use crate::audio::{AudioError, MAX_BLOCK_FRAMES, StereoBlock, StereoSink, UnpublishedFile};
use crate::engine::Control;

/// Blocks queued per encoder: 2 x 195,840 frames x 8 bytes = 3 MB with the usual models.
const QUEUED_BLOCKS: usize = 2;

/// The encoders of the requested stems, in their order. Those that have failed are `None`.
pub(super) struct Encoders<'scope>(Vec<Option<Encoder<'scope>>>);

/// Bytes of the blocks that `stems` encoders hold: those queued and the one being encoded.
pub(super) fn queued_bytes(stems: usize, block_frames: usize) -> u64 {
    (stems * (QUEUED_BLOCKS + 1) * block_frames * 2 * size_of::<f32>()) as u64
}

struct Encoder<'scope> {
    messages: Sender<EncoderMessage>,
    /// Returns the file if the encoder received the end of the song.
    thread: ScopedJoinHandle<'scope, Result<Option<UnpublishedFile>, AudioError>>,
}

enum EncoderMessage {
    Block(StereoBlock),
    End,
}

impl<'scope> Encoders<'scope> {
    /// Starts a thread for each sink. The threads end when the encoders are finished or dropped.
    pub(super) fn start(scope: &'scope Scope<'scope, '_>, sinks: Vec<Box<dyn StereoSink>>) -> Self {
        let start = |sink: Box<dyn StereoSink>| {
            let (messages, receiver) = bounded(QUEUED_BLOCKS);
            let thread = scope.spawn(move || encode(sink, &receiver));
            Some(Encoder { messages, thread })
        };
        Self(sinks.into_iter().map(start).collect())
    }

    /// Sends the next block of each stem to its encoder.
    pub(super) fn write(&mut self, stems: Vec<StereoBlock>) -> Result<(), AudioError> {
        for (encoder, block) in self.0.iter_mut().zip(stems) {
            send(encoder, EncoderMessage::Block(block))?;
        }
        Ok(())
    }

    /// Completes the files; all still have temporary names.
    pub(super) fn finish(mut self) -> Result<Vec<UnpublishedFile>, SongError> {
        for encoder in &mut self.0 {
            send(encoder, EncoderMessage::End).map_err(SongError::Encode)?;
        }
        let mut files = Vec::new();
        for encoder in self.0.into_iter().flatten() {
            files.extend(join(encoder).map_err(SongError::Encode)?);
        }
        Ok(files)
    }
}

/// A sink that refuses data once the work must stop: the second pass of a spooled stem is long enough to be
/// stopped.
pub(super) struct Stoppable {
    pub(super) inner: Box<dyn StereoSink>,
    pub(super) path: PathBuf,
    pub(super) control: Control,
}

impl StereoSink for Stoppable {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        self.control
            .check(Instant::now())
            .map_err(|stopped| AudioError::Write {
                path: self.path.clone(),
                source: io::Error::new(io::ErrorKind::Interrupted, stopped),
            })?;
        self.inner.write(block)
    }

    fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        self.inner.finish()
    }
}

fn encode(
    mut sink: Box<dyn StereoSink>,
    messages: &Receiver<EncoderMessage>,
) -> Result<Option<UnpublishedFile>, AudioError> {
    for message in messages {
        match message {
            EncoderMessage::Block(block) => write_in_parts(sink.as_mut(), &block)?,
            EncoderMessage::End => return sink.finish().map(Some),
        }
    }
    // The separation failed: the sink is dropped and leaves no file.
    Ok(None)
}

/// Writes a block in parts as short as those of a source, so that conversions need little memory.
fn write_in_parts(sink: &mut dyn StereoSink, block: &StereoBlock) -> Result<(), AudioError> {
    for start in (0..block.frames()).step_by(MAX_BLOCK_FRAMES) {
        let end = block.frames().min(start + MAX_BLOCK_FRAMES);
        sink.write(&block.range(start..end))?;
    }
    Ok(())
}

/// An encoder with a closed queue has failed; its thread returns the reason.
fn send(encoder: &mut Option<Encoder<'_>>, message: EncoderMessage) -> Result<(), AudioError> {
    let Some(running) = encoder else { return Ok(()) };
    if running.messages.send(message).is_ok() {
        return Ok(());
    }
    encoder.take().map_or(Ok(()), |failed| join(failed).map(drop))
}

fn join(encoder: Encoder<'_>) -> Result<Option<UnpublishedFile>, AudioError> {
    drop(encoder.messages);
    encoder
        .thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{OutputFormat, PeakSpool, WavSamples};

    struct Parts(Vec<usize>);

    impl StereoSink for Parts {
        fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
            self.0.push(block.frames());
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
            unreachable!("only writing is tested")
        }
    }

    #[test]
    fn long_blocks_are_written_completely_and_in_short_parts() {
        let mut parts = Parts(Vec::new());
        write_in_parts(&mut parts, &StereoBlock::silence(2 * MAX_BLOCK_FRAMES + 1)).unwrap();
        assert_eq!(parts.0, [MAX_BLOCK_FRAMES, MAX_BLOCK_FRAMES, 1]);
    }

    #[test]
    fn the_second_pass_of_a_spooled_stem_can_be_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stem.wav");
        let control = Control::default();
        let inner = crate::audio::create(&path, OutputFormat::Wav(WavSamples::Int16)).unwrap();
        let stoppable = Stoppable {
            inner,
            path: path.clone(),
            control: control.clone(),
        };
        let mut spool = Box::new(PeakSpool::new(Box::new(stoppable), directory.path(), |_| 1.0).unwrap());
        spool.write(&StereoBlock::silence(1_000)).unwrap();
        control.cancel.cancel();
        assert!(spool.finish().is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
