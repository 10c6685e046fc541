//! The pipeline from audio to stems: three threads joined by short queues, so that decoding, transforms,
//! inference and delivery run in parallel and memory does not depend on the song's length.
//!
//! `source -> cut, transform -> (values) -> network -> (values) -> transform, overlap-add, formula -> deliver`

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::chunk_transform::{ForwardTransform, InverseTransform};
use super::control::{Control, Progress};
use super::cutter::{Chunk, Cutter};
use super::error::{NetworkError, SeparateError};
use super::geometry::ChunkGrid;
use super::level::Level;
use super::overlap_add::OverlapAdder;
use super::stems::{StemFormula, StemSelection, StemSource};
use super::tensors::{ChunkTensor, Tensors};
use crate::audio::{AudioError, StereoBlock, StereoSource};

/// Batches queued between two threads. One keeps both busy; each further one costs the values of a chunk (8 MB with
/// the usual models).
const QUEUED_BATCHES: usize = 1;

/// Batches in existence: one in each of the three threads and one in each of the two queues.
const BATCHES: usize = 3 + 2 * QUEUED_BATCHES;

/// A model that maps the values of chunks to those of stems. Implementations handle no audio and no song files.
pub trait Network {
    /// What it takes for one chunk and returns for it.
    fn tensors(&self) -> Tensors;

    /// Replaces the values of `batch` consecutive chunks by the model's outputs: for each chunk those of `outputs`, in
    /// this order, each as large as a chunk.
    ///
    /// # Errors
    /// If the model cannot run or returns another shape.
    fn run(&mut self, batch: usize, values: &mut Vec<f32>, outputs: &[usize]) -> Result<(), NetworkError>;

    /// Announces that the next run is the last of a song, so that memory kept between runs may be released.
    fn ends_next(&mut self) {}
}

/// Settings of one separation.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the network takes and returns.
    pub tensors: Tensors,
    /// Positions of the chunks.
    pub grid: ChunkGrid,
    /// The stems to deliver, in this order, each at most once.
    pub stems: Vec<StemSource>,
    /// How stems are computed from the model's outputs.
    pub formula: StemFormula,
    /// The level of the song, if the model expects it normalized.
    pub level: Option<Level>,
    /// Whether to run the model on the negated chunk too and combine both: (f(X) - f(-X)) / 2.
    pub denoise: bool,
    /// Chunks per run of the model, at least 1.
    pub batch: usize,
}

impl Plan {
    /// Bytes of all buffers of a separation, outside the network: those of samples, of values, and of sums.
    pub fn buffer_bytes(&self) -> u64 {
        const FRAME_BYTES: usize = 2 * size_of::<f32>();
        let chunk = self.tensors.chunk;
        let (chunk_frames, step_frames) = (self.grid.chunk_frames(), self.grid.step_frames());
        let outputs = StemSelection::new(&self.stems).outputs().len();
        let input = self.batch * chunk.values() * size_of::<f32>();
        let negated = usize::from(self.denoise);
        let masked = usize::from(chunk.masked().is_some());
        let values = (BATCHES + negated) * input * outputs + masked * input;
        // New frames of each chunk in a batch; the chunk that is cut, the one that is joined, and the song between them.
        let frames = BATCHES * self.batch * step_frames + 3 * chunk_frames + self.grid.kept_frames();
        // Final blocks of the song, of outputs and of stems.
        let blocks = (1 + outputs + self.stems.len()) * step_frames;
        // Left, right and weight in doubles, and the window.
        let sums = (3 * outputs + 1) * chunk_frames * size_of::<f64>();
        // The padded channel of either transform.
        let transforms = match chunk {
            ChunkTensor::Waveform { .. } => 0,
            ChunkTensor::Spectrum(spectrum) => 2 * (chunk_frames + spectrum.shape.n_fft()) * size_of::<f32>(),
        };
        (values + (frames + blocks) * FRAME_BYTES + sums + transforms) as u64
    }
}

/// Separates all of `source`. Calls `deliver` with consecutive blocks of the plan's stems, then `report`, both on a
/// thread of the pipeline. Returns the number of frames.
///
/// # Errors
/// The first failure of any part; nothing is delivered after it.
///
/// # Panics
/// If the network's tensors are not the plan's, its chunks are not those of the grid, the plan has no stem, or its
/// batches are empty.
pub fn separate(
    network: &mut dyn Network,
    plan: &Plan,
    source: &mut dyn StereoSource,
    deliver: &mut (dyn FnMut(Vec<StereoBlock>) -> Result<(), AudioError> + Send),
    report: &mut (dyn FnMut(Progress) + Send),
    control: &Control,
) -> Result<u64, SeparateError> {
    assert_eq!(
        network.tensors(),
        plan.tensors,
        "the plan is made for the network"
    );
    assert_eq!(
        plan.tensors.chunk.chunk_frames(),
        plan.grid.chunk_frames(),
        "the grid is made for the network"
    );
    assert!(plan.batch > 0, "a batch has at least one chunk");
    assert!(!plan.stems.is_empty(), "there is a stem to deliver");
    let selection = &StemSelection::new(&plan.stems);
    let (expected_frames, is_estimate) = (source.expected_frames(), source.is_length_estimated());
    let (to_network, from_analysis) = bounded(QUEUED_BATCHES);
    let (to_synthesis, from_network) = bounded(QUEUED_BATCHES);
    let (recycle, recycled) = bounded(BATCHES);
    std::thread::scope(|scope| {
        let analysis = scope.spawn(move || analyze(plan, source, control, &to_network, &recycled));
        let synthesis = scope.spawn(move || {
            let mut synthesis = Synthesis::new(plan, selection);
            synthesis.run(&from_network, &recycle, deliver, control, &mut |done_frames| {
                report(Progress {
                    done_frames,
                    expected_frames,
                    is_estimate,
                });
            })
        });
        // A thread whose neighbor failed finds its queue closed and ends; the neighbor returns the reason.
        let inference = Inference {
            network,
            plan,
            outputs: selection.outputs(),
            inputs: Vec::new(),
        }
        .run(&from_analysis, &to_synthesis, control);
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
    /// What the model takes for each chunk, and after it what it returns.
    values: Vec<f32>,
    /// No batch follows. Not set for a song that ends exactly with its last chunk.
    last: bool,
}

/// First thread: reads the song, cuts it and transforms the chunks.
fn analyze(
    plan: &Plan,
    source: &mut dyn StereoSource,
    control: &Control,
    to_network: &Sender<Batch>,
    recycled: &Receiver<Batch>,
) -> Result<(), SeparateError> {
    let mut cutter = Cutter::new(plan.grid, plan.level, source, control);
    let mut transform = ForwardTransform::new(plan.tensors.chunk);
    let per_chunk = plan.tensors.chunk.values();
    loop {
        let mut batch = recycled.try_recv().unwrap_or_default();
        batch.chunks.clear();
        batch.values.resize(plan.batch * per_chunk, 0.0);
        for values in batch.values.chunks_exact_mut(per_chunk) {
            let Some(chunk) = cutter.next_chunk()? else { break };
            transform.apply(cutter.samples(), values);
            batch.chunks.push(chunk);
        }
        if batch.chunks.is_empty() {
            return Ok(());
        }
        batch.values.truncate(batch.chunks.len() * per_chunk);
        batch.last = cutter.is_at_end();
        if to_network.send(batch).is_err() {
            return Ok(());
        }
    }
}

/// Second thread, the caller's: runs the model.
struct Inference<'i> {
    network: &'i mut dyn Network,
    plan: &'i Plan,
    outputs: &'i [usize],
    /// What the model took in its latest run, if that is needed again.
    inputs: Vec<f32>,
}

impl Inference<'_> {
    fn run(
        &mut self,
        from_analysis: &Receiver<Batch>,
        to_synthesis: &Sender<Batch>,
        control: &Control,
    ) -> Result<(), SeparateError> {
        let mut negated = Vec::new();
        for mut batch in from_analysis {
            control.check(Instant::now())?;
            if self.plan.denoise {
                negated.clear();
                negated.extend(batch.values.iter().map(|value| -value));
                self.run_model(batch.chunks.len(), &mut negated)?;
            }
            if batch.last {
                self.network.ends_next();
            }
            self.run_model(batch.chunks.len(), &mut batch.values)?;
            if self.plan.denoise {
                for (value, negated) in batch.values.iter_mut().zip(&negated) {
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

    /// Replaces the values of chunks by those of their stems.
    fn run_model(&mut self, chunks: usize, values: &mut Vec<f32>) -> Result<(), NetworkError> {
        let Some(masked) = self.plan.tensors.chunk.masked() else {
            return self.network.run(chunks, values, self.outputs);
        };
        self.inputs.clear();
        self.inputs.extend_from_slice(values);
        self.network.run(chunks, values, self.outputs)?;
        let per_chunk = masked.shape.values();
        let inputs = self.inputs.chunks_exact(per_chunk);
        for (input, masks) in inputs.zip(values.chunks_exact_mut(self.outputs.len() * per_chunk)) {
            for masks in masks.chunks_exact_mut(per_chunk) {
                masked.apply_masks(input, masks);
            }
        }
        Ok(())
    }
}

/// Third thread: back to audio, overlap-add, stems.
struct Synthesis<'p> {
    plan: &'p Plan,
    selection: &'p StemSelection,
    transform: InverseTransform,
    /// One for each needed output of the model.
    adders: Vec<OverlapAdder>,
    demixed: StereoBlock,
    /// The part of the song that is in chunks and not in delivered stems.
    song: StereoBlock,
    done_frames: u64,
}

impl<'p> Synthesis<'p> {
    fn new(plan: &'p Plan, selection: &'p StemSelection) -> Self {
        let adder = |_| OverlapAdder::new(plan.grid);
        Self {
            plan,
            selection,
            transform: InverseTransform::new(plan.tensors.chunk),
            adders: selection.outputs().iter().map(adder).collect(),
            demixed: StereoBlock::default(),
            song: StereoBlock::default(),
            done_frames: 0,
        }
    }

    /// Returns the number of frames delivered.
    fn run(
        &mut self,
        from_network: &Receiver<Batch>,
        recycle: &Sender<Batch>,
        deliver: &mut (dyn FnMut(Vec<StereoBlock>) -> Result<(), AudioError> + Send),
        control: &Control,
        report: &mut dyn FnMut(u64),
    ) -> Result<u64, SeparateError> {
        let per_chunk = self.adders.len() * self.plan.tensors.chunk.values();
        for batch in from_network {
            for (chunk, values) in batch.chunks.iter().zip(batch.values.chunks_exact(per_chunk)) {
                let stems = self.stems(chunk, values)?;
                control.check(Instant::now())?;
                self.done_frames += stems[0].frames() as u64;
                deliver(stems).map_err(SeparateError::Deliver)?;
                report(self.done_frames);
            }
            // The receiver may already have ended.
            let _ = recycle.try_send(batch);
        }
        Ok(self.done_frames)
    }

    /// The final part of the stems after one more chunk, whose outputs of the model are `values`.
    fn stems(&mut self, chunk: &Chunk, values: &[f32]) -> Result<Vec<StereoBlock>, SeparateError> {
        let values = values.chunks_exact(self.plan.tensors.chunk.values());
        let mut found = Vec::with_capacity(self.adders.len());
        for (adder, values) in self.adders.iter_mut().zip(values) {
            let mut block = StereoBlock::default();
            self.transform.apply(values, &mut self.demixed);
            adder.add(chunk, &self.demixed, &mut block);
            drop_front(&mut block, chunk.lead_frames);
            if !block.interleaved().all(f32::is_finite) {
                let second = self.done_frames as f64 / f64::from(crate::audio::SAMPLE_RATE_HZ);
                return Err(SeparateError::NotFinite { second });
            }
            if let Some(level) = self.plan.level {
                level.restore(&mut block.left);
                level.restore(&mut block.right);
            }
            found.push(block);
        }
        self.song.append(&chunk.fresh);
        let mix = take_front(&mut self.song, chunk.final_frames - chunk.lead_frames);
        Ok(self.selection.compute(self.plan.formula, &mix, found))
    }
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
