//! Encodes each stem on its own thread, in parallel with the separation.

use std::io;
use std::path::PathBuf;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::SongError;
use crate::audio::{AudioError, StereoBlock, StereoSink, UnpublishedFile};
use crate::engine::{Control, StemBlocks};

/// Blocks queued per encoder: 2 x 195,840 frames x 8 bytes = 3 MB with the usual models.
const QUEUED_BLOCKS: usize = 2;

/// The encoders of the requested stems.
pub(super) struct Encoders<'scope> {
    primary: Option<Encoder<'scope>>,
    secondary: Option<Encoder<'scope>>,
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
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        primary: Option<Box<dyn StereoSink>>,
        secondary: Option<Box<dyn StereoSink>>,
    ) -> Self {
        let start = |sink: Box<dyn StereoSink>| {
            let (messages, receiver) = bounded(QUEUED_BLOCKS);
            let thread = scope.spawn(move || encode(sink, &receiver));
            Encoder { messages, thread }
        };
        Self {
            primary: primary.map(start),
            secondary: secondary.map(start),
        }
    }

    /// Sends the next block of the stems to their encoders.
    pub(super) fn write(&mut self, stems: StemBlocks) -> Result<(), AudioError> {
        send(&mut self.primary, EncoderMessage::Block(stems.primary))?;
        send(&mut self.secondary, EncoderMessage::Block(stems.secondary))
    }

    /// Completes the files; all still have temporary names.
    pub(super) fn finish(mut self) -> Result<Vec<UnpublishedFile>, SongError> {
        for encoder in [&mut self.primary, &mut self.secondary] {
            send(encoder, EncoderMessage::End).map_err(SongError::Encode)?;
        }
        let mut files = Vec::new();
        for encoder in [self.primary, self.secondary].into_iter().flatten() {
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
            EncoderMessage::Block(block) => sink.write(&block)?,
            EncoderMessage::End => return sink.finish().map(Some),
        }
    }
    // The separation failed: the sink is dropped and leaves no file.
    Ok(None)
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
