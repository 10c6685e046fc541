//! One song: from a file to the files of its stems, through a model that is loaded once.
//!
//! Stems appear whole and together at the end, or not at all.

mod encoding;
mod error;
mod level;

use std::path::{Path, PathBuf};
use std::thread;

pub use error::SongError;

use crate::audio::StereoSink;
use crate::audio::{
    self, FileSource, OutputFormat, PeakSpool, SinkReport, SourceInfo, SourceOptions, SourceReport,
};
use crate::engine::{self, ChunkGrid, Control, Overlap, Plan, Progress, StemFormula};
use crate::model::{self, ModelChoice, ModelParameters, StemName};
use crate::onnx::{ModelSource, OnnxNetwork, Provider, RuntimeOptions};
use crate::places::Places;
use encoding::Encoders;
use level::{Scaled, level_to_full_scale, level_to_peer_limit};

/// Chunks that a GPU is given at once: enough to fill it, and 32 MB of spectra each way with the largest models.
const CUDA_BATCH: usize = 4;

/// How stems are computed and written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SongSettings {
    /// How far chunks overlap.
    pub overlap: Overlap,
    /// Run the model on the negated song as well; twice the work.
    pub denoise: bool,
    /// From the model's output to stems.
    pub formula: Formula,
    /// What is done to the level of stems.
    pub normalize: Normalize,
    /// How stems are written.
    pub format: OutputFormat,
}

/// From the model's output to stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formula {
    /// UVR's: the stems sum to the song.
    Uvr,
    /// That of the Python package audio-separator, levels of song and stems included; for comparison only.
    AudioSeparator,
}

/// What is done to the level of stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// Nothing.
    None,
    /// A stem that would clip is scaled down until it does not.
    Peak,
}

/// Where one stem goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StemOutput {
    /// The stem.
    pub stem: StemName,
    /// Its file, which is replaced if it exists.
    pub path: PathBuf,
}

/// What became of a song.
#[derive(Debug, Clone)]
pub struct SongReport {
    /// What the song's file is.
    pub input: SourceInfo,
    /// What was found wrong with it, if anything.
    pub source: SourceReport,
    /// Length of the song, and of each stem, in frames at 44.1 kHz.
    pub frames: u64,
    /// What was written, in the order asked for.
    pub outputs: Vec<(StemOutput, SinkReport)>,
}

/// A loaded model, ready for songs one after the other.
pub struct Separator {
    network: OnnxNetwork,
    parameters: ModelParameters,
    batch: usize,
}

impl Separator {
    /// Loads a model.
    ///
    /// # Errors
    /// When the model, its parameters or what should run it cannot be used.
    pub fn load(choice: &ModelChoice, options: RuntimeOptions, places: &Places) -> Result<Self, SongError> {
        let (source, parameters) = match choice {
            ModelChoice::Builtin => (
                ModelSource::Bytes(model::BUILTIN_ONNX),
                model::builtin_parameters(),
            ),
            ModelChoice::File { model, parameters } => {
                if !model.is_file() {
                    return Err(SongError::NoModel { path: model.clone() });
                }
                (
                    ModelSource::File(model),
                    model::find_parameters(model, parameters.as_deref())?,
                )
            }
        };
        let network = OnnxNetwork::load(source, options, places, |rows, columns| {
            parameters.shape(rows, columns)
        })?;
        let batch = match options.provider {
            Provider::Cpu => 1,
            Provider::Cuda => network.batch_limit().unwrap_or(CUDA_BATCH),
        };
        Ok(Self {
            network,
            parameters,
            batch,
        })
    }

    /// The stem that the model finds, and what is left without it.
    pub fn stems(&self) -> [StemName; 2] {
        [
            self.parameters.primary_stem.clone(),
            self.parameters.primary_stem.complement(),
        ]
    }

    /// The model itself, for measuring it alone.
    pub fn network(&mut self) -> &mut OnnxNetwork {
        &mut self.network
    }

    /// Checks that this model's chunks can overlap so.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check_overlap(&self, overlap: Overlap) -> Result<(), SongError> {
        use engine::Network as _;
        ChunkGrid::new(self.network.shape(), overlap)?;
        Ok(())
    }

    /// Separates the song in the file `input`. `report` is called from another thread, after each chunk.
    ///
    /// # Errors
    /// When the song cannot be read or separated, or a stem cannot be written; then no output exists or changes.
    ///
    /// # Panics
    /// When an output is no stem of this model.
    pub fn separate(
        &mut self,
        input: &Path,
        outputs: &[StemOutput],
        settings: &SongSettings,
        report: &mut (dyn FnMut(Progress) + Send),
        control: &Control,
    ) -> Result<SongReport, SongError> {
        use engine::Network as _;
        let source_options = SourceOptions::default();
        let (formula, input_gain) = match settings.formula {
            Formula::Uvr => (
                StemFormula::Uvr {
                    compensate: self.parameters.compensate,
                },
                1.0,
            ),
            Formula::AudioSeparator => {
                let peak = level::peak_of(&mut open(input, &source_options)?, control)?;
                let compensate = self.parameters.compensate;
                (
                    StemFormula::AudioSeparator { compensate, peak },
                    level_to_peer_limit(peak),
                )
            }
        };
        let plan = Plan {
            grid: ChunkGrid::new(self.network.shape(), settings.overlap)?,
            formula,
            denoise: settings.denoise,
            batch: self.batch,
        };
        let mut source = Scaled {
            inner: open(input, &source_options)?,
            gain: input_gain,
        };
        let [primary, secondary] = self.stems();
        let sink = |stem: &StemName| -> Result<Option<Box<dyn StereoSink>>, SongError> {
            let output = outputs.iter().find(|output| output.stem == *stem);
            output.map(|output| create(&output.path, settings)).transpose()
        };
        let (primary_sink, secondary_sink) = (sink(&primary)?, sink(&secondary)?);
        let wanted = usize::from(primary_sink.is_some()) + usize::from(secondary_sink.is_some());
        assert_eq!(wanted, outputs.len(), "every output is a stem of this model");

        let network = &mut self.network;
        let (frames, unpublished) = thread::scope(|scope| {
            let mut encoders = Encoders::start(scope, primary_sink, secondary_sink);
            let mut deliver = |stems| encoders.write(stems);
            let frames = engine::separate(network, &plan, &mut source, &mut deliver, report, control)?;
            Ok::<_, SongError>((frames, encoders.finish()?))
        })?;

        let mut reports = Vec::with_capacity(outputs.len());
        for file in unpublished {
            let output = outputs.iter().find(|output| output.path == file.destination());
            let output = output.expect("each file was created for an output").clone();
            reports.push((output, file.publish().map_err(SongError::Publish)?));
        }
        reports.sort_by_key(|(written, _)| outputs.iter().position(|output| output == written));
        let input = source.inner.info().clone();
        Ok(SongReport {
            input,
            source: source.inner.report(),
            frames,
            outputs: reports,
        })
    }
}

fn open(input: &Path, options: &SourceOptions) -> Result<FileSource, SongError> {
    audio::open(input, options).map_err(SongError::Open)
}

fn create(path: &Path, settings: &SongSettings) -> Result<Box<dyn StereoSink>, SongError> {
    let sink = audio::create(path, settings.format).map_err(SongError::Create)?;
    let rule = match (settings.formula, settings.normalize) {
        (Formula::AudioSeparator, _) => level_to_peer_limit,
        (Formula::Uvr, Normalize::Peak) => level_to_full_scale,
        (Formula::Uvr, Normalize::None) => return Ok(sink),
    };
    let scratch_dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let spool = PeakSpool::new(sink, scratch_dir, rule).map_err(SongError::Create)?;
    Ok(Box::new(spool))
}
