//! The pipeline from audio to stems: three threads joined by short queues, so that decoding, transforms,
//! inference and delivery run in parallel and memory does not depend on the song's length.
//!
//! `source -> analyze -> (spectra) -> network -> (spectra) -> synthesize, overlap-add, formula -> deliver`

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::control::{Control, Progress, Stopped};
use super::geometry::{ChunkGrid, SpectrumShape};
use super::overlap_add::OverlapAdder;
use super::stems::{StemBlocks, StemFormula};
use super::stft::{Analyzer, Synthesizer};
use crate::audio::{AudioError, StereoBlock, StereoSource};
use crate::error::ErrorClass;

/// Batches queued between two threads. One keeps both busy; each further one costs a spectrum (8 MB).
const QUEUED_BATCHES: usize = 1;

/// Batches in existence: one in each of the three threads and one in each of the two queues.
const BATCHES: usize = 3 + 2 * QUEUED_BATCHES;

/// A model that maps spectra to spectra. Implementations handle no audio and no song files.
pub trait Network {
    /// The shape of its input and output spectra.
    fn shape(&self) -> SpectrumShape;

    /// Replaces `batch` consecutive spectra in `spectra` by the model's output.
    ///
    /// # Errors
    /// If the model cannot run or returns another shape.
    fn run(&mut self, batch: usize, spectra: &mut [f32]) -> Result<(), NetworkError>;

    /// Announces that the next run is the last of a song, so that memory kept between runs may be released.
    fn ends_next(&mut self) {}
}

/// The model failed to run.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    class: ErrorClass,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl NetworkError {
    /// An error with a message and its cause.
    pub fn new(
        class: ErrorClass,
        message: impl Into<String>,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            class,
            message: message.into(),
            source,
        }
    }
}

/// Settings of one separation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Positions of the chunks.
    pub grid: ChunkGrid,
    /// How stems are computed from the model's output.
    pub formula: StemFormula,
    /// Whether to run the model on the negated spectrum too and combine both: (f(X) - f(-X)) / 2.
    pub denoise: bool,
    /// Chunks per run of the model, at least 1.
    pub batch: usize,
}

/// Why a song was not separated.
#[derive(Debug, thiserror::Error)]
pub enum SeparateError {
    /// The song could not be read.
    #[error("cannot read the song")]
    Source(#[source] AudioError),
    /// The song has no audio.
    #[error("the song is empty: it has no audio at all")]
    Empty,
    /// The stems could not be written.
    #[error("cannot write the stems")]
    Deliver(#[source] AudioError),
    /// The model could not run.
    #[error("the model failed")]
    Network(#[from] NetworkError),
    /// The model returned NaN or infinity.
    #[error("the model returned NaN or infinity at second {second:.1} of the song")]
    NotFinite {
        /// Position in the song, in seconds.
        second: f64,
    },
    /// The separation was canceled or its deadline passed.
    #[error("stopped before the end of the song")]
    Stopped(#[from] Stopped),
}

impl SeparateError {
    /// Whether a retry may succeed.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Source(error) | Self::Deliver(error) => error.class(),
            Self::Empty | Self::NotFinite { .. } => ErrorClass::Permanent,
            Self::Network(error) => error.class,
            Self::Stopped(Stopped::DeadlineExceeded) => ErrorClass::TimedOut,
            Self::Stopped(Stopped::Canceled) => ErrorClass::Interrupted,
        }
    }
}

/// Separates all of `source`. Calls `deliver` with consecutive blocks of both stems, then `report`, both on a
/// thread of the pipeline. Returns the number of frames.
///
/// # Errors
/// The first failure of any part; nothing is delivered after it.
///
/// # Panics
/// If the network's shape is not the plan's, or a batch of the plan is empty.
pub fn separate(
    network: &mut dyn Network,
    plan: &Plan,
    source: &mut dyn StereoSource,
    deliver: &mut (dyn FnMut(StemBlocks) -> Result<(), AudioError> + Send),
    report: &mut (dyn FnMut(Progress) + Send),
    control: &Control,
) -> Result<u64, SeparateError> {
    assert_eq!(
        network.shape(),
        plan.grid.shape(),
        "the plan is made for the network"
    );
    assert!(plan.batch > 0, "a batch has at least one chunk");
    let expected_frames = source.expected_frames();
    let (to_network, from_analysis) = bounded(QUEUED_BATCHES);
    let (to_synthesis, from_network) = bounded(QUEUED_BATCHES);
    let (recycle, recycled) = bounded(BATCHES);
    std::thread::scope(|scope| {
        let analysis = scope.spawn(move || analyze(plan, source, control, &to_network, &recycled));
        let synthesis = scope.spawn(move || {
            synthesize(plan, &from_network, &recycle, deliver, control, |done_frames| {
                report(Progress {
                    done_frames,
                    expected_frames,
                });
            })
        });
        // A thread whose neighbor failed finds its queue closed and ends; the neighbor returns the reason.
        let inference = infer(network, plan, &from_analysis, &to_synthesis, control);
        drop((from_analysis, to_synthesis));
        let read = analysis
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let written = synthesis
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        inference?;
        read?;
        written
    })
}

/// Consecutive chunks passed between the threads.
#[derive(Default)]
struct Batch {
    chunks: Vec<Chunk>,
    spectra: Vec<f32>,
    /// No batch follows. Not set for a song that ends exactly with its last chunk.
    last: bool,
}

struct Chunk {
    /// Frames of the chunk that are inside z.
    covered: usize,
    /// Frames from its start that no later chunk changes.
    final_frames: usize,
    /// The part of z in this chunk that no earlier chunk had, without the padding after the song.
    fresh: StereoBlock,
}

/// First thread: reads the song, cuts it and transforms the chunks.
fn analyze(
    plan: &Plan,
    source: &mut dyn StereoSource,
    control: &Control,
    to_network: &Sender<Batch>,
    recycled: &Receiver<Batch>,
) -> Result<(), SeparateError> {
    let mut cutter = Cutter::new(plan.grid, source, control);
    let mut analyzer = Analyzer::new(plan.grid.shape());
    let values = plan.grid.shape().values();
    loop {
        let mut batch = recycled.try_recv().unwrap_or_default();
        batch.chunks.clear();
        batch.spectra.resize(plan.batch * values, 0.0);
        for spectrum in batch.spectra.chunks_exact_mut(values) {
            let Some(chunk) = cutter.next_chunk()? else { break };
            analyzer.transform(&cutter.samples, spectrum);
            batch.chunks.push(chunk);
        }
        if batch.chunks.is_empty() {
            return Ok(());
        }
        batch.spectra.truncate(batch.chunks.len() * values);
        batch.last = cutter.is_at_end();
        if to_network.send(batch).is_err() {
            return Ok(());
        }
    }
}

/// Second thread, the caller's: runs the model.
fn infer(
    network: &mut dyn Network,
    plan: &Plan,
    from_analysis: &Receiver<Batch>,
    to_synthesis: &Sender<Batch>,
    control: &Control,
) -> Result<(), SeparateError> {
    let mut negated = Vec::new();
    for mut batch in from_analysis {
        control.check(Instant::now())?;
        if plan.denoise {
            negated.clear();
            negated.extend(batch.spectra.iter().map(|value| -value));
            network.run(batch.chunks.len(), &mut negated)?;
        }
        if batch.last {
            network.ends_next();
        }
        network.run(batch.chunks.len(), &mut batch.spectra)?;
        if plan.denoise {
            for (value, negated) in batch.spectra.iter_mut().zip(&negated) {
                *value = 0.5 * *value - 0.5 * negated;
            }
        }
        if to_synthesis.send(batch).is_err() {
            break;
        }
    }
    control.check(Instant::now())?;
    Ok(())
}

/// Third thread: back to audio, overlap-add, stems. Returns the number of frames delivered.
fn synthesize(
    plan: &Plan,
    from_network: &Receiver<Batch>,
    recycle: &Sender<Batch>,
    deliver: &mut (dyn FnMut(StemBlocks) -> Result<(), AudioError> + Send),
    control: &Control,
    mut report: impl FnMut(u64),
) -> Result<u64, SeparateError> {
    let mut synthesizer = Synthesizer::new(plan.grid.shape());
    let mut adder = OverlapAdder::new(plan.grid);
    let mut demixed = StereoBlock::default();
    let mut song = StereoBlock::default();
    let mut silence_left = plan.grid.shape().trim_frames();
    let mut done_frames = 0;
    for batch in from_network {
        let values = plan.grid.shape().values();
        for (chunk, spectrum) in batch.chunks.iter().zip(batch.spectra.chunks_exact(values)) {
            let mut final_block = StereoBlock::default();
            synthesizer.transform(spectrum, &mut demixed);
            adder.add(&demixed, chunk.covered, chunk.final_frames, &mut final_block);
            song.append(&chunk.fresh);
            let mut mix = take_front(&mut song, chunk.final_frames);
            let silence = silence_left.min(chunk.final_frames);
            silence_left -= silence;
            drop_front(&mut final_block, silence);
            drop_front(&mut mix, silence);
            if !final_block.interleaved().all(f32::is_finite) {
                let second = done_frames as f64 / f64::from(crate::audio::SAMPLE_RATE_HZ);
                return Err(SeparateError::NotFinite { second });
            }
            control.check(Instant::now())?;
            done_frames += final_block.frames() as u64;
            deliver(plan.formula.apply(&mix, final_block)).map_err(SeparateError::Deliver)?;
            report(done_frames);
        }
        // The receiver may already have ended.
        let _ = recycle.try_send(batch);
    }
    Ok(done_frames)
}

/// Cuts a song into the chunks of a grid.
struct Cutter<'s> {
    grid: ChunkGrid,
    source: &'s mut dyn StereoSource,
    control: &'s Control,
    /// The samples of the latest chunk, padded with silence to its full length.
    samples: StereoBlock,
    /// The part of z read so far, from the start of the next chunk on.
    pending: StereoBlock,
    /// Frames at the front of `pending` that were already in a chunk.
    used_frames: usize,
    block: StereoBlock,
    song_frames: u64,
    at_end: bool,
    index: u64,
}

impl<'s> Cutter<'s> {
    fn new(grid: ChunkGrid, source: &'s mut dyn StereoSource, control: &'s Control) -> Self {
        Self {
            grid,
            source,
            control,
            samples: StereoBlock::default(),
            pending: StereoBlock::silence(grid.shape().trim_frames()),
            used_frames: 0,
            block: StereoBlock::default(),
            song_frames: 0,
            at_end: false,
            index: 0,
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>, SeparateError> {
        let chunk_frames = self.grid.shape().chunk_frames();
        self.fill(chunk_frames)?;
        let step = self.grid.step_frames();
        let (covered, final_frames) = if self.at_end {
            if self.is_at_end() {
                return Ok(None);
            }
            let start = self.grid.start(self.index);
            let song_end = self.grid.shape().trim_frames() as u64 + self.song_frames;
            let padded_end = self.grid.shape().padded_frames(self.song_frames);
            (
                at_most(chunk_frames, padded_end - start),
                at_most(step, song_end - start),
            )
        } else {
            (chunk_frames, step)
        };
        let audible = chunk_frames.min(self.pending.frames());
        self.samples.clear();
        self.samples.append_range(&self.pending, 0..audible);
        self.samples.left.resize(chunk_frames, 0.0);
        self.samples.right.resize(chunk_frames, 0.0);
        let fresh = self.pending.range(self.used_frames..audible);
        let passed = step.min(self.pending.frames());
        drop_front(&mut self.pending, passed);
        self.used_frames = audible.saturating_sub(passed);
        self.index += 1;
        Ok(Some(Chunk {
            covered,
            final_frames,
            fresh,
        }))
    }

    /// Whether all chunks were cut, as far as is known.
    fn is_at_end(&self) -> bool {
        self.at_end && self.index == self.grid.chunks(self.song_frames)
    }

    fn fill(&mut self, frames: usize) -> Result<(), SeparateError> {
        while !self.at_end && self.pending.frames() < frames {
            self.control.check(Instant::now())?;
            self.source.read(&mut self.block).map_err(SeparateError::Source)?;
            self.song_frames += self.block.frames() as u64;
            self.pending.append(&self.block);
            self.at_end = self.block.is_empty();
        }
        if self.at_end && self.song_frames == 0 {
            return Err(SeparateError::Empty);
        }
        Ok(())
    }
}

fn at_most(limit: usize, frames: u64) -> usize {
    usize::try_from(frames).map_or(limit, |frames| frames.min(limit))
}

fn take_front(block: &mut StereoBlock, frames: usize) -> StereoBlock {
    let front = block.range(0..frames);
    drop_front(block, frames);
    front
}

fn drop_front(block: &mut StereoBlock, frames: usize) {
    block.left.drain(..frames);
    block.right.drain(..frames);
}
