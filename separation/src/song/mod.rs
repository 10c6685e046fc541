//! Separates one song file into stem files, with a model that is loaded once.
//!
//! A stem file appears complete or not at all, and only after all stems are complete.

mod encoding;
mod error;
mod format;
mod level;
mod memory;
mod model_file;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub use error::SongError;
pub use format::{StemFormat, StemRate};
pub use memory::{MemoryBound, peak_memory_bytes};
pub use model_file::ModelFile;
use sha2::{Digest as _, Sha256};

use crate::audio::{
    self, AudioError, FileSource, PeakSpool, ResampledSink, SAMPLE_RATE_HZ, SinkReport, SourceInfo,
    SourceOptions, SourceReport, StereoSink, UnpublishedFile,
};
use crate::engine::{
    self, ChunkGrid, Control, Level, Network as _, NetworkError, Overlap, Plan, Progress, SeparateError,
    StemFormula, StemSource,
};
use crate::locations::Locations;
use crate::model::checksum::{hash_of, hexadecimal};
use crate::model::{
    self, Contract, ContractError, ContractKind, Declaration, DeclaredModel, Interface, ModelChoice,
    ParametersError, Provenance, StemName,
};
use crate::onnx::{LoadError, ModelSource, OnnxNetwork, Provider, RuntimeOptions};
use encoding::{Encoders, Stoppable};
use level::{AUDIO_SEPARATOR_PEAK, Scaled, lowering_gain};

/// Chunks of MDX-Net models per run on a GPU: enough to fill it, and 32 MB of spectra each way with the largest models.
/// One chunk of any other model fills a GPU.
const CUDA_BATCH: usize = 4;

/// The longest song: a day. A few kilobytes of compressed silence can expand to weeks and would fill the
/// disk.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// How stems are computed and written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SongSettings {
    /// The overlap of chunks; `None` is the model's own.
    pub overlap: Option<Overlap>,
    /// Whether to run the model on the negated song as well; twice the work.
    pub denoise: bool,
    /// How stems are computed from the model's output.
    pub formula: Formula,
    /// Level adjustment of stems.
    pub normalize: Normalize,
    /// Format of stems.
    pub format: StemFormat,
    /// Sample rate of stems.
    pub rate: StemRate,
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
    /// Length of the song in frames at 44.1 kHz.
    pub frames: u64,
    /// The written files, in the requested order.
    pub outputs: Vec<(StemOutput, SinkReport)>,
}

/// A loaded model, which separates one song after the other.
pub struct Separator {
    network: OnnxNetwork,
    options: RuntimeOptions,
    batch: usize,
    fingerprint: String,
    provenance: Provenance,
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
        let file = ModelFile::find(choice, locations)?;
        let (source, found) = match &file {
            None => (
                ModelSource::Bytes(model::BUILTIN_ONNX),
                Ok(DeclaredModel::MdxNet(model::builtin_parameters())),
            ),
            Some(ModelFile { model, parameters }) => (
                ModelSource::File(model),
                model::find_parameters(model, parameters.as_deref()),
            ),
        };
        let (declared, missing) = optional(file.as_ref(), found)?;
        let contract = |interface: &Interface| match &declared {
            Some(declared) => declared.contract(interface),
            None => Contract::read(interface, Declaration::default()),
        };
        let network = OnnxNetwork::load(source, options, locations, contract);
        let mut network = network.map_err(|error| load_error(error, missing))?;
        let batch = match (options.provider, network.contract().kind) {
            (Provider::Cuda, ContractKind::MdxNet) => {
                let batch = network.batch_limit().unwrap_or(CUDA_BATCH);
                let largest = memory::largest_batch(&mut network, batch);
                largest.map_err(|source| gpu_error(source, options))?
            }
            (Provider::Cuda | Provider::Cpu, _) => 1,
        };
        let (sha256, fingerprint) = checksums(source, declared.as_ref())?;
        let provenance = match &file {
            None => Provenance::of_builtin(sha256),
            Some(file) => Provenance::of_file(&file.model, file.parameters.as_deref(), sha256),
        };
        Ok(Self {
            fingerprint,
            provenance,
            network,
            options,
            batch,
        })
    }

    /// Identifies the model, in hexadecimal digits: SHA-256 of its file and its parameters.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// License and origin of the model.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The model's tensor contract.
    pub fn contract(&self) -> &Contract {
        self.network.contract()
    }

    /// The names of all stems: those that the model finds, in its order, then the rest of the song without one of them.
    pub fn stems(&self) -> Vec<StemName> {
        self.network.contract().stems.names()
    }

    /// Number of chunks of a song of `song_frames`, for benchmarks.
    ///
    /// # Errors
    /// If the model's overlap does not suit its chunks.
    pub fn chunks(&self, song_frames: u64) -> Result<u64, SongError> {
        Ok(self.grid(None)?.chunks(song_frames))
    }

    /// The model itself, for benchmarks.
    pub fn network(&mut self) -> &mut OnnxNetwork {
        &mut self.network
    }

    /// Checks the settings against this model.
    ///
    /// # Errors
    /// If the overlap does not suit its chunks, or the formula is not defined for it.
    pub fn check(&self, settings: &SongSettings) -> Result<(), SongError> {
        if settings.formula == Formula::AudioSeparator && self.network.contract().kind != ContractKind::MdxNet
        {
            return Err(SongError::Formula);
        }
        self.grid(settings.overlap).map(drop)
    }

    /// Keeps the memory of separating songs into `stems` below the limit of the runtime options, if there is one: measures it
    /// by a run of the model, and takes shorter chunks while it is above, if the model's file leaves their length open. On
    /// a GPU, ONNX Runtime enforces the limit. Returns the memory that is needed; `None` without a limit, or if this
    /// system does not measure memory.
    ///
    /// # Errors
    /// If the model cannot run, or not within the limit.
    ///
    /// # Panics
    /// If one of `stems` is not a stem of this model.
    pub fn limit_memory(
        &mut self,
        stems: &[StemName],
        settings: &SongSettings,
    ) -> Result<Option<MemoryBound>, SongError> {
        let RuntimeOptions { provider, .. } = self.options;
        let Some(allowed_bytes) = self.options.max_memory_bytes else {
            return Ok(None);
        };
        let bound = |bytes: u64, plan: &Plan| MemoryBound {
            bytes,
            provider,
            chunk_frames: plan.grid.chunk_frames(),
            batch: plan.batch,
        };
        // Loading a model may need more than running it.
        let loaded_bytes = peak_memory_bytes().unwrap_or(0);
        let formula = StemFormula::Uvr { compensate: 1.0 };
        loop {
            let plan = self.plan_with(self.sources(stems), settings, formula, None)?;
            let refused = match provider {
                Provider::Cuda => match memory::run_silence(&mut self.network, plan.batch, 1) {
                    Ok(()) => return Ok(Some(bound(allowed_bytes, &plan))),
                    Err(source) => gpu_error(source, self.options),
                },
                Provider::Cpu => {
                    let needed = memory::needed_bytes(&mut self.network, &plan)?;
                    match needed.map(|bytes| bytes.max(loaded_bytes)) {
                        None => return Ok(None),
                        Some(bytes) if bytes <= allowed_bytes => return Ok(Some(bound(bytes, &plan))),
                        Some(needed_bytes) => SongError::Memory {
                            needed_bytes,
                            allowed_bytes,
                        },
                    }
                }
            };
            if !self.halve_chunks() {
                return Err(refused);
            }
        }
    }

    /// Takes chunks of half the length, if the model allows them, and releases memory that longer ones used.
    fn halve_chunks(&mut self) -> bool {
        let half = self.network.contract().tensors.chunk.chunk_frames() / 2;
        if half < memory::SHORTEST_CHUNK_FRAMES || !self.network.halve_chunks() {
            return false;
        }
        // Stems differ with the length of chunks.
        let identity = format!("{} in chunks of half the length", self.fingerprint);
        self.fingerprint = hexadecimal(&Sha256::digest(identity));
        self.network.ends_next();
        self.options.provider == Provider::Cuda
            || memory::run_silence(&mut self.network, self.batch, 1).is_ok()
    }

    fn sources<'n>(&self, names: impl IntoIterator<Item = &'n StemName>) -> Vec<StemSource> {
        let stems = &self.network.contract().stems;
        let sources = names.into_iter().map(|name| stems.source(name));
        sources
            .collect::<Option<Vec<_>>>()
            .expect("these are stems of this model")
    }

    fn grid(&self, overlap: Option<Overlap>) -> Result<ChunkGrid, SongError> {
        let contract = self.network.contract();
        let chunk_frames = contract.tensors.chunk.chunk_frames();
        let overlap = overlap.unwrap_or(contract.overlap);
        Ok(ChunkGrid::new(contract.chunking, chunk_frames, overlap)?)
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
        self.check(settings)?;
        let stems = self.sources(outputs.iter().map(|output| &output.stem));
        let (plan, gain) = self.plan(input, stems, settings, control)?;
        let mut source = Scaled {
            inner: open(input)?,
            gain,
        };
        let stem_files = StemFiles {
            settings,
            song: source.inner.info().clone(),
            song_frames: Arc::default(),
            control,
        };
        let sinks: Vec<_> = outputs
            .iter()
            .map(|output| stem_files.create(&output.path))
            .collect::<Result<_, _>>()?;

        let network = &mut self.network;
        let (frames, unpublished) = thread::scope(|scope| {
            let mut encoders = Encoders::start(scope, sinks);
            let mut deliver = |stems| encoders.write(stems);
            let frames = engine::separate(network, &plan, &mut source, &mut deliver, report, control)?;
            if let Some(song_frames) = source.inner.file_frames() {
                stem_files.song_frames.get_or_init(|| song_frames);
            }
            let files = encoders
                .finish()
                .map_err(|error| match control.check(Instant::now()) {
                    Err(stopped) => SeparateError::from(stopped).into(),
                    Ok(()) => error,
                })?;
            Ok::<_, SongError>((frames, files))
        })?;

        let outputs = publish(unpublished, outputs)?;
        Ok(SongReport {
            input: stem_files.song,
            source: source.inner.report(),
            frames,
            outputs,
        })
    }

    /// The plan for the song in the file `input`, and the gain to apply to the song before it is separated.
    fn plan(
        &self,
        input: &Path,
        stems: Vec<StemSource>,
        settings: &SongSettings,
        control: &Control,
    ) -> Result<(Plan, f32), SongError> {
        let contract = self.network.contract();
        let compensate = contract.compensate;
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
        let level = if contract.is_normalized {
            Some(level::level_of(&mut open(input)?, control)?)
        } else {
            None
        };
        Ok((self.plan_with(stems, settings, formula, level)?, gain))
    }

    fn plan_with(
        &self,
        stems: Vec<StemSource>,
        settings: &SongSettings,
        formula: StemFormula,
        level: Option<Level>,
    ) -> Result<Plan, SongError> {
        Ok(Plan {
            tensors: self.network.contract().tensors,
            grid: self.grid(settings.overlap)?,
            stems,
            formula,
            level,
            denoise: settings.denoise,
            batch: self.batch,
        })
    }
}

/// What is declared about the model, or why nothing is: only the tensors show whether the model needs a declaration. A
/// file that the user names must have one.
fn optional(
    file: Option<&ModelFile>,
    found: Result<DeclaredModel, ParametersError>,
) -> Result<(Option<DeclaredModel>, Option<ParametersError>), ParametersError> {
    let is_named = file.is_some_and(|file| file.parameters.is_some());
    match found {
        Ok(declared) => Ok((Some(declared), None)),
        Err(error @ (ParametersError::NotFound { .. } | ParametersError::NotListed { .. })) if !is_named => {
            Ok((None, Some(error)))
        }
        Err(error) => Err(error),
    }
}

/// Why a model cannot be used whose parameters are `missing`.
fn load_error(error: LoadError, missing: Option<ParametersError>) -> SongError {
    match (error, missing) {
        (LoadError::Contract(ContractError::NoMdxNetParameters { metadata }), Some(missing))
            if metadata.is_empty() =>
        {
            missing.into()
        }
        (LoadError::Contract(error), Some(_)) if error.needs_sidecar() => SongError::Undeclared(error),
        (error, _) => error.into(),
    }
}

/// Why the model does not run on the GPU, whose memory may be limited.
fn gpu_error(source: NetworkError, options: RuntimeOptions) -> SongError {
    match options.max_memory_bytes {
        Some(allowed_bytes) => SongError::GpuMemory {
            allowed_bytes,
            source,
        },
        None => SeparateError::from(source).into(),
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

/// SHA-256 of a model, and of the model with what is declared about it. Reads the file as a stream.
fn checksums(
    source: ModelSource<'_>,
    declared: Option<&DeclaredModel>,
) -> Result<(String, String), SongError> {
    let mut digest = match source {
        ModelSource::Bytes(bytes) => Sha256::new_with_prefix(bytes),
        ModelSource::File(path) => {
            let read = File::open(path).and_then(hash_of);
            read.map_err(|source| SongError::ReadModel {
                path: path.to_owned(),
                source,
            })?
        }
    };
    let sha256 = hexadecimal(&digest.clone().finalize());
    match declared {
        Some(DeclaredModel::MdxNet(parameters)) => digest.update(format!("{parameters:?}")),
        Some(DeclaredModel::Tensors(declaration)) => digest.update(format!("{declaration:?}")),
        None => {}
    }
    Ok((sha256, hexadecimal(&digest.finalize())))
}

fn open(input: &Path) -> Result<FileSource, SongError> {
    let options = SourceOptions {
        max_duration: Some(MAX_DURATION),
        ..SourceOptions::default()
    };
    audio::open(input, &options).map_err(SongError::Open)
}

/// Creates the files of a song's stems.
struct StemFiles<'s> {
    settings: &'s SongSettings,
    song: SourceInfo,
    /// Length of the song at its own rate, once it is known.
    song_frames: Arc<OnceLock<u64>>,
    control: &'s Control,
}

impl StemFiles<'_> {
    fn create(&self, path: &Path) -> Result<Box<dyn StereoSink>, SongError> {
        let rate_hz = self.settings.rate.for_song(&self.song);
        let sink = self.create_at_rate(path, rate_hz).map_err(SongError::Create)?;
        if rate_hz == SAMPLE_RATE_HZ {
            return Ok(sink);
        }
        // Outside the spool, because conversion changes peaks.
        let sink = ResampledSink::new(sink, path, rate_hz, Arc::clone(&self.song_frames));
        Ok(Box::new(sink.map_err(SongError::Create)?))
    }

    fn create_at_rate(&self, path: &Path, rate_hz: u32) -> Result<Box<dyn StereoSink>, AudioError> {
        let format = self.settings.format.for_song(&self.song);
        let sink = audio::create_at_rate(path, format, rate_hz)?;
        let limit = match (self.settings.formula, self.settings.normalize) {
            (Formula::AudioSeparator, _) => AUDIO_SEPARATOR_PEAK,
            (Formula::Uvr, Normalize::Peak) => format.full_scale(),
            (Formula::Uvr, Normalize::None) => return Ok(sink),
        };
        let sink = Box::new(Stoppable {
            inner: sink,
            path: path.into(),
            control: self.control.clone(),
        });
        let spool = PeakSpool::new(sink, audio::directory_of(path), move |peak| {
            lowering_gain(peak, limit)
        })?;
        Ok(Box::new(spool))
    }
}
