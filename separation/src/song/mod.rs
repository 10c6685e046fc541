//! Separates one song file into stem files, with a model that is loaded once.
//!
//! A stem file appears complete or not at all, and only after all stems are complete.

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
    StereoSink, UnpublishedFile,
};
use crate::engine::{self, ChunkGrid, Control, Overlap, Plan, Progress, SeparateError, StemFormula};
use crate::locations::Locations;
use crate::model::{self, ModelChoice, ModelParameters, StemName};
use crate::onnx::{ModelSource, OnnxNetwork, Provider, RuntimeOptions};
use encoding::{Encoders, Stoppable};
use level::{AUDIO_SEPARATOR_PEAK, Scaled, lowering_gain};

/// Chunks per run on a GPU: enough to fill it, and 32 MB of spectra each way with the largest models.
const CUDA_BATCH: usize = 4;

/// The longest song: a day. A few kilobytes of compressed silence can expand to weeks and would fill the
/// disk.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// How stems are computed and written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SongSettings {
    /// The overlap of chunks.
    pub overlap: Overlap,
    /// Whether to run the model on the negated song as well; twice the work.
    pub denoise: bool,
    /// How stems are computed from the model's output.
    pub formula: Formula,
    /// Level adjustment of stems.
    pub normalize: Normalize,
    /// Output format of stems.
    pub format: OutputFormat,
}

/// How stems are computed from the model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formula {
    /// UVR's: the stems sum to the song.
    Uvr,
    /// The formula of the Python package audio-separator, including its levels of song and stems; for
    /// comparison only.
    AudioSeparator,
}

/// Level adjustment of stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// Nothing.
    None,
    /// Scales a stem that would clip down to full scale.
    Peak,
}

/// Destination of one stem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StemOutput {
    /// The stem.
    pub stem: StemName,
    /// The file, which is replaced if it exists.
    pub path: PathBuf,
}

/// Result of separating a song.
#[derive(Debug, Clone)]
pub struct SongReport {
    /// The detected format of the song.
    pub input: SourceInfo,
    /// Problems found while reading it.
    pub source: SourceReport,
    /// Length of the song, and of each stem, in frames at 44.1 kHz.
    pub frames: u64,
    /// The written files, in the requested order.
    pub outputs: Vec<(StemOutput, SinkReport)>,
}

/// A loaded model, which separates one song after the other.
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
    /// If the model, its parameters or the execution provider cannot be used.
    pub fn load(
        choice: &ModelChoice,
        options: RuntimeOptions,
        locations: &Locations,
    ) -> Result<Self, SongError> {
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
        let network = OnnxNetwork::load(source, options, locations, |fixed| parameters.shape(fixed))?;
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

    /// Identifies the model, in hexadecimal digits: SHA-256 of its file and its parameters.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The stem that the model finds, and its complement.
    pub fn stems(&self) -> [StemName; 2] {
        [
            self.parameters.primary_stem.clone(),
            self.parameters.primary_stem.complement(),
        ]
    }

    /// The model itself, for benchmarks.
    pub fn network(&mut self) -> &mut OnnxNetwork {
        &mut self.network
    }

    /// Checks the overlap against this model's chunks.
    ///
    /// # Errors
    /// If it does not suit them.
    pub fn check_overlap(&self, overlap: Overlap) -> Result<(), SongError> {
        use engine::Network as _;
        ChunkGrid::new(self.network.shape(), overlap)?;
        Ok(())
    }

    /// Separates the song in the file `input`. `report` is called from another thread after each chunk.
    ///
    /// # Errors
    /// If the song cannot be read or separated, or a stem cannot be written. Then no output exists or
    /// changes, unless the last step fails: renaming a complete stem.
    ///
    /// # Panics
    /// If an output is not a stem of this model.
    pub fn separate(
        &mut self,
        input: &Path,
        outputs: &[StemOutput],
        settings: &SongSettings,
        report: &mut (dyn FnMut(Progress) + Send),
        control: &Control,
    ) -> Result<SongReport, SongError> {
        let (plan, gain) = self.plan(input, settings, control)?;
        let mut source = Scaled {
            inner: open(input)?,
            gain,
        };
        let [primary, secondary] = self.stems();
        let sink = |stem: &StemName| -> Result<Option<Box<dyn StereoSink>>, SongError> {
            let output = outputs.iter().find(|output| output.stem == *stem);
            output
                .map(|output| create(&output.path, settings, control))
                .transpose()
        };
        let (primary_sink, secondary_sink) = (sink(&primary)?, sink(&secondary)?);
        let sinks = usize::from(primary_sink.is_some()) + usize::from(secondary_sink.is_some());
        assert_eq!(sinks, outputs.len(), "every output is a stem of this model");

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

        let outputs = publish(unpublished, outputs)?;
        let input = source.inner.info().clone();
        Ok(SongReport {
            input,
            source: source.inner.report(),
            frames,
            outputs,
        })
    }

    /// The plan for the song in the file `input`, and the gain to apply to the song before it is separated.
    fn plan(
        &self,
        input: &Path,
        settings: &SongSettings,
        control: &Control,
    ) -> Result<(Plan, f32), SongError> {
        use engine::Network as _;
        let compensate = self.parameters.compensate;
        let (formula, gain) = match settings.formula {
            Formula::Uvr => (StemFormula::Uvr { compensate }, 1.0),
            Formula::AudioSeparator => {
                let peak = level::peak_of(&mut open(input)?, control)?;
                (
                    StemFormula::AudioSeparator { compensate, peak },
                    lowering_gain(peak, AUDIO_SEPARATOR_PEAK),
                )
            }
        };
        let plan = Plan {
            grid: ChunkGrid::new(self.network.shape(), settings.overlap)?,
            formula,
            denoise: settings.denoise,
            batch: self.batch,
        };
        Ok((plan, gain))
    }
}

/// Publishes the complete files, and returns them in the order of `outputs`.
fn publish(
    files: Vec<UnpublishedFile>,
    outputs: &[StemOutput],
) -> Result<Vec<(StemOutput, SinkReport)>, SongError> {
    let mut published = Vec::with_capacity(outputs.len());
    for file in files {
        let output = outputs.iter().find(|output| output.path == file.destination());
        let output = output.expect("each file was created for an output").clone();
        published.push((output, file.publish().map_err(SongError::Publish)?));
    }
    published.sort_by_key(|(written, _)| outputs.iter().position(|output| output == written));
    Ok(published)
}

/// SHA-256 of a model and of its parameters. Reads the file as a stream.
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

/// A writer that hashes its input.
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

fn open(input: &Path) -> Result<FileSource, SongError> {
    let options = SourceOptions {
        max_duration: Some(MAX_DURATION),
        ..SourceOptions::default()
    };
    audio::open(input, &options).map_err(SongError::Open)
}

fn create(path: &Path, settings: &SongSettings, control: &Control) -> Result<Box<dyn StereoSink>, SongError> {
    let sink = audio::create(path, settings.format).map_err(SongError::Create)?;
    let limit = match (settings.formula, settings.normalize) {
        (Formula::AudioSeparator, _) => AUDIO_SEPARATOR_PEAK,
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
