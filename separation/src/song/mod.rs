//! One song: from a file to the files of its stems, through a model that is loaded once.
//!
//! A stem appears whole at the end, or not at all; no stem appears before all are complete.

mod encoding;
mod error;
mod level;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use error::SongError;
use sha2::{Digest as _, Sha256};

use crate::audio::{
    self, FileSource, OutputFormat, PeakSpool, SinkReport, SourceInfo, SourceOptions, SourceReport,
    StereoSink,
};
use crate::engine::{self, ChunkGrid, Control, Overlap, Plan, Progress, SeparateError, StemFormula};
use crate::model::{self, ModelChoice, ModelParameters, StemName};
use crate::onnx::{ModelSource, OnnxNetwork, Provider, RuntimeOptions};
use crate::places::Places;
use encoding::{Encoders, Stoppable};
use level::{PEER_LIMIT, Scaled, lowering_gain};

/// Chunks that a GPU is given at once: enough to fill it, and 32 MB of spectra each way with the largest models.
const CUDA_BATCH: usize = 4;

/// The longest song: a day. A few kilobytes of compressed silence can claim to be weeks, and would fill the disk.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

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
    fingerprint: String,
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
        let network = OnnxNetwork::load(source, options, places, |fixed| parameters.shape(fixed))?;
        let batch = match options.provider {
            Provider::Cpu => 1,
            Provider::Cuda => network.batch_limit().unwrap_or(CUDA_BATCH),
        };
        Ok(Self {
            fingerprint: fingerprint(source, &parameters)?,
            network,
            parameters,
            batch,
        })
    }

    /// What tells this model from others, in hexadecimal digits: SHA-256 of its file and its parameters.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
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
    /// When the song cannot be read or separated, or a stem cannot be written; then no output
    /// exists or changes, unless the file system refuses the very last step, giving a complete stem its name.
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
        let source_options = SourceOptions {
            max_duration: Some(MAX_DURATION),
            ..SourceOptions::default()
        };
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
                    lowering_gain(peak, PEER_LIMIT),
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
            output
                .map(|output| create(&output.path, settings, control))
                .transpose()
        };
        let (primary_sink, secondary_sink) = (sink(&primary)?, sink(&secondary)?);
        let wanted = usize::from(primary_sink.is_some()) + usize::from(secondary_sink.is_some());
        assert_eq!(wanted, outputs.len(), "every output is a stem of this model");

        let network = &mut self.network;
        let (frames, unpublished) = thread::scope(|scope| {
            let mut encoders = Encoders::start(scope, primary_sink, secondary_sink);
            let mut deliver = |stems| encoders.write(stems);
            let frames = engine::separate(network, &plan, &mut source, &mut deliver, report, control)?;
            let files = encoders
                .finish()
                .map_err(|error| match control.check(Instant::now()) {
                    Err(stopped) => SeparateError::from(stopped).into(),
                    Ok(()) => error,
                })?;
            Ok::<_, SongError>((frames, files))
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

/// SHA-256 of a model and of how it is used. Reads the file as a stream.
fn fingerprint(source: ModelSource<'_>, parameters: &ModelParameters) -> Result<String, SongError> {
    let mut digest = Sha256::new();
    match source {
        ModelSource::Bytes(bytes) => digest.update(bytes),
        ModelSource::File(path) => {
            let read =
                File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut HashWriter(&mut digest)));
            read.map_err(|source| SongError::ReadModel {
                path: path.to_owned(),
                source,
            })?;
        }
    }
    digest.update(format!("{parameters:?}"));
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Hashes what is written to it.
struct HashWriter<'d>(&'d mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn open(input: &Path, options: &SourceOptions) -> Result<FileSource, SongError> {
    audio::open(input, options).map_err(SongError::Open)
}

fn create(path: &Path, settings: &SongSettings, control: &Control) -> Result<Box<dyn StereoSink>, SongError> {
    let sink = audio::create(path, settings.format).map_err(SongError::Create)?;
    let limit = match (settings.formula, settings.normalize) {
        (Formula::AudioSeparator, _) => PEER_LIMIT,
        (Formula::Uvr, Normalize::Peak) => settings.format.full_scale(),
        (Formula::Uvr, Normalize::None) => return Ok(sink),
    };
    let sink = Box::new(Stoppable {
        inner: sink,
        path: path.into(),
        control: control.clone(),
    });
    let spool = PeakSpool::new(sink, audio::directory_of(path), move |peak| {
        lowering_gain(peak, limit)
    })
    .map_err(SongError::Create)?;
    Ok(Box::new(spool))
}
