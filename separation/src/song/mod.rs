//! Separates one song file into stem files, with a model that is loaded once.
//!
//! A stem file appears complete or not at all, and only after all stems are complete.

mod encoding;
mod error;
mod format;
mod level;
mod model_file;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub use error::SongError;
pub use format::{StemFormat, StemRate};
pub use model_file::ModelFile;
use sha2::{Digest as _, Sha256};

use crate::audio::{
    self, AudioError, FileSource, PeakSpool, ResampledSink, SAMPLE_RATE_HZ, SinkReport, SourceInfo,
    SourceOptions, SourceReport, StereoSink, UnpublishedFile,
};
use crate::engine::{self, ChunkGrid, Control, Overlap, Plan, Progress, SeparateError, StemFormula};
use crate::locations::Locations;
use crate::model::{self, ModelChoice, ModelParameters, Provenance, StemName};
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
    parameters: ModelParameters,
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
        let (source, parameters) = match &file {
            None => (
                ModelSource::Bytes(model::BUILTIN_ONNX),
                model::builtin_parameters(),
            ),
            Some(ModelFile { model, parameters }) => (
                ModelSource::File(model),
                model::find_parameters(model, parameters.as_deref())?,
            ),
        };
        let network = OnnxNetwork::load(source, options, locations, |fixed| parameters.shape(fixed))?;
        let batch = match options.provider {
            Provider::Cpu => 1,
            Provider::Cuda => network.batch_limit().unwrap_or(CUDA_BATCH),
        };
        let (sha256, fingerprint) = checksums(source, &parameters)?;
        let provenance = match &file {
            None => Provenance::of_builtin(sha256),
            Some(file) => Provenance::of_file(&file.model, file.parameters.as_deref(), sha256),
        };
        Ok(Self {
            fingerprint,
            provenance,
            network,
            parameters,
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

    /// The tensor contract of the model, and the shape of its spectra, as text.
    pub fn contract(&self) -> String {
        use engine::Network as _;
        let shape = self.network.shape();
        format!(
            "mdx, float32 of [batch, 4, F = {}, T = {}], n_fft {}",
            shape.rows(),
            shape.columns(),
            shape.n_fft()
        )
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
        let stem_files = StemFiles {
            settings,
            song: source.inner.info().clone(),
            song_frames: Arc::default(),
            control,
        };
        let sink = |stem: &StemName| -> Result<Option<Box<dyn StereoSink>>, SongError> {
            let output = outputs.iter().find(|output| output.stem == *stem);
            output.map(|output| stem_files.create(&output.path)).transpose()
        };
        let (primary_sink, secondary_sink) = (sink(&primary)?, sink(&secondary)?);
        let sinks = usize::from(primary_sink.is_some()) + usize::from(secondary_sink.is_some());
        assert_eq!(sinks, outputs.len(), "every output is a stem of this model");

        let network = &mut self.network;
        let (frames, unpublished) = thread::scope(|scope| {
            let mut encoders = Encoders::start(scope, primary_sink, secondary_sink);
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

/// SHA-256 of a model, and of the model with its parameters. Reads the file as a stream.
fn checksums(source: ModelSource<'_>, parameters: &ModelParameters) -> Result<(String, String), SongError> {
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
    let hexadecimal = |digest: Sha256| -> String {
        let bytes = digest.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let sha256 = hexadecimal(digest.clone());
    digest.update(format!("{parameters:?}"));
    Ok((sha256, hexadecimal(digest)))
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
