//! Runs a song through the loaded model, on a blocking thread.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use separation_contract::api_task::FailureCode;

use super::failure_code::failure_code;
use super::output::{DEFAULT_FORMAT, bytes_per_frame};
use crate::audio::{AudioError, OutputFormat, SAMPLE_RATE_HZ, check_encoder};
use crate::engine::Progress;
use crate::error::ErrorClass;
use crate::locations::Locations;
use crate::model::{ModelChoice, Provenance, StemName};
use crate::onnx::RuntimeOptions;
use crate::song::{
    Formula, MemoryBound, Normalize, Separator, SongError, SongReport, SongSettings, StemFormat, StemOutput,
    StemRate,
};
use crate::storage::{AttemptScratch, Disk, StagedInput, is_disk_error, is_full, os_errors};
use crate::work::{Dependency, WorkContext, WorkError, chain};

/// How the song of a task is separated.
#[derive(Debug, Clone, Copy)]
pub(super) struct SongOptions {
    /// Format of the stems.
    pub(super) format: OutputFormat,
    /// The longest song, in seconds; `None` without a limit of the task.
    pub(super) max_seconds: Option<u64>,
}

/// Separation settings: the defaults of `separation-worker separate`, except for the format.
fn settings(format: OutputFormat) -> SongSettings {
    SongSettings {
        overlap: None,
        denoise: false,
        formula: Formula::Uvr,
        normalize: Normalize::None,
        format: StemFormat::Fixed(format),
        rate: StemRate::Fixed,
    }
}

/// Why a model cannot serve tasks.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] SongError),
    /// The model's stems are not vocals and instrumental.
    #[error("the stems of the model are {found}, but tasks need vocals and instrumental")]
    Stems {
        /// The model's stems.
        found: String,
    },
}

impl ModelError {
    /// The model as a dependency, if its file is missing or unreadable.
    pub fn dependency(&self) -> Option<Dependency> {
        let Self::Load(error) = self else {
            return None;
        };
        let fix =
            "store the model's files in MODEL_FILE_DIR under MODEL_NAME, or install it with `models fetch`";
        match error {
            SongError::NotInstalled { .. } | SongError::NoModel { .. } => {
                Some(Dependency::new("model", "missing", fix))
            }
            SongError::ReadModel { .. } => Some(Dependency::new("model", "unreadable", fix)),
            _ => None,
        }
    }
}

/// A loaded model; clones share it, and it runs one song at a time.
#[derive(Clone)]
pub struct Separation {
    separator: Arc<Mutex<Separator>>,
    vocals: StemName,
    instrumental: StemName,
    memory: Option<MemoryBound>,
    model: String,
    provenance: Arc<Provenance>,
}

/// The files of a song's stems.
#[derive(Debug, Clone)]
pub(super) struct Separated {
    pub(super) vocals: PathBuf,
    pub(super) instrumental: PathBuf,
}

/// A disk error that made a separation fail.
#[derive(Debug)]
struct DiskError {
    disk: Disk,
    cause: io::Error,
}

/// The operating system's error when reading the song or writing its stems, if that made a separation fail.
fn find_disk_error(error: &SongError) -> Option<DiskError> {
    let disk = match error {
        SongError::Create(_) | SongError::Encode(_) | SongError::Publish(_) => Disk::Scratch,
        _ => Disk::Shared,
    };
    let number = os_errors(error).find(|number| is_disk_error(*number))?;
    Some(DiskError {
        disk,
        cause: io::Error::from_raw_os_error(number),
    })
}

/// A disk error is a dependency's, except when this song's stems alone, of `needed` bytes, fill the disk.
async fn disk_failure(
    error_on_disk: DiskError,
    message: String,
    scratch: &AttemptScratch,
    needed: u64,
) -> WorkError {
    // Only scratch space is written to.
    let full = is_full(&error_on_disk.cause);
    if full && scratch.fills_its_disk(needed).await.unwrap_or(false) {
        return WorkError::new(ErrorClass::Permanent, message);
    }
    let disk = if full { Disk::Scratch } else { error_on_disk.disk };
    WorkError::held(disk.dependency(&error_on_disk.cause), message)
}

/// Limits of one song.
#[derive(Debug, Clone, Copy)]
struct Limits {
    options: SongOptions,
    /// Scratch space for the stems, in bytes.
    room: u64,
}

impl Limits {
    /// Bytes that stems of this length need.
    fn needed(&self, frames: u64) -> u64 {
        frames.saturating_mul(bytes_per_frame(self.options.format))
    }

    /// Why a song of this length cannot be separated; `None` if it can.
    fn exceeded(&self, frames: u64) -> Option<WorkError> {
        if let Some(seconds) = self.options.max_seconds
            && frames > seconds.saturating_mul(SAMPLE_RATE_HZ.into())
        {
            let problem = format!("the song is longer than the limit of {seconds} s");
            let too_long = WorkError::new(ErrorClass::Permanent, problem);
            return Some(too_long.with_code(FailureCode::InputTooLong));
        }
        let room = self.room;
        (self.needed(frames) > room).then(|| {
            WorkError::new(
                ErrorClass::Permanent,
                format!(
                    "the stems need more than the remaining {room} bytes of scratch space; fix: raise SCRATCH_LIMIT_BYTES"
                ),
            )
        })
    }
}

/// Separates a song on this thread and reports its progress. Cancels the separation once the song exceeds its limits.
/// Returns the result, and the largest length in frames that the song is known to have.
fn separate_within(
    separator: &Mutex<Separator>,
    input: &StagedInput,
    outputs: &[StemOutput],
    limits: Limits,
    context: &WorkContext,
) -> (Result<SongReport, SongError>, u64) {
    let control = context.control();
    let mut frames = 0;
    let mut separate = || {
        check_encoder(limits.options.format).map_err(SongError::Create)?;
        // A panic leaves no state in the separator that the next song reads.
        let mut separator = separator.lock().unwrap_or_else(PoisonError::into_inner);
        // The previous song may have held the model until this one's time limit passed.
        control
            .check(Instant::now())
            .map_err(|stopped| SongError::Separate(stopped.into()))?;
        let mut report = |progress: Progress| {
            let expected = progress.expected_frames.unwrap_or(0);
            let declared = if progress.is_estimate { 0 } else { expected };
            frames = frames.max(progress.done_frames).max(declared);
            if limits.exceeded(frames).is_some() {
                control.cancel.cancel();
            }
            if let Some(percent) = progress.done_frames.saturating_mul(100).checked_div(expected) {
                context.report_progress(u8::try_from(percent).map_or(100, |percent| percent.min(100)));
            }
        };
        let settings = settings(limits.options.format);
        let begin = Instant::now();
        let done = separator.separate(&input.path, outputs, &settings, &mut report, &control);
        if let Ok(song) = &done {
            let audio_seconds = song.frames as f64 / f64::from(SAMPLE_RATE_HZ);
            context.metrics().separated(audio_seconds, begin.elapsed());
        }
        done
    };
    let done = separate();
    (done, frames)
}

/// The error of a separation, which has this text.
fn work_error(error: &SongError, message: String) -> WorkError {
    if let SongError::Create(AudioError::Mp3NeedsFfmpeg | AudioError::Mp3NeedsLame) = error {
        let fix = "install ffmpeg with libmp3lame on the workers";
        return WorkError::held(Dependency::new("ffmpeg", "missing", fix), message);
    }
    let failed = WorkError::new(error.class(), message);
    match failure_code(error) {
        Some(code) => failed.with_code(code),
        None => failed,
    }
}

impl Separation {
    /// Loads a model. Blocks; do not call on an async thread.
    ///
    /// # Errors
    /// When it cannot be loaded, has other stems than tasks need, or needs more memory than the options allow.
    pub fn load(
        choice: &ModelChoice,
        options: RuntimeOptions,
        locations: &Locations,
    ) -> Result<Self, ModelError> {
        let mut separator = Separator::load(choice, options, locations)?;
        separator.check(&settings(DEFAULT_FORMAT))?;
        let stems = separator.stems();
        let named = |name: &str| stems.iter().find(|stem| stem.as_str() == name).cloned();
        let (Some(vocals), Some(instrumental)) = (named("vocals"), named("instrumental")) else {
            return Err(ModelError::Stems {
                found: stems.iter().map(StemName::as_str).collect::<Vec<_>>().join(", "),
            });
        };
        let memory =
            separator.limit_memory(&[vocals.clone(), instrumental.clone()], &settings(DEFAULT_FORMAT))?;
        Ok(Self {
            memory,
            model: separator.fingerprint().to_owned(),
            provenance: Arc::new(separator.provenance().clone()),
            separator: Arc::new(Mutex::new(separator)),
            vocals,
            instrumental,
        })
    }

    /// The model's fingerprint: equal fingerprints produce equal stems.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The most memory that a song needs, if it is limited.
    pub fn memory(&self) -> Option<MemoryBound> {
        self.memory
    }

    /// License and origin of the model.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Separates `input` into files in `scratch`.
    pub(super) async fn run(
        &self,
        input: &StagedInput,
        scratch: &AttemptScratch,
        options: SongOptions,
        context: &WorkContext,
    ) -> Result<Separated, WorkError> {
        let file = |stem: &str| {
            scratch
                .path()
                .join(format!("{stem}.{}", options.format.extension()))
        };
        let files = Separated {
            vocals: file("vocals"),
            instrumental: file("instrumental"),
        };
        let outputs = [
            (&self.vocals, &files.vocals),
            (&self.instrumental, &files.instrumental),
        ]
        .map(|(stem, path)| StemOutput {
            stem: stem.clone(),
            path: path.clone(),
        });
        let room = scratch.remaining_bytes().await?;
        let limits = Limits { options, room };
        // Keeps the input open until the separation has ended.
        let (staged, separator, context) = (input.clone(), Arc::clone(&self.separator), context.clone());
        let task = tokio::task::spawn_blocking(move || {
            separate_within(&separator, &staged, &outputs, limits, &context)
        });
        let (done, frames) = task.await.map_err(|panicked| {
            WorkError::new(ErrorClass::Bug, format!("the separation panicked: {panicked}"))
        })?;
        if let Some(exceeded) = limits.exceeded(frames) {
            return Err(exceeded);
        }
        let error = match done {
            Ok(song) => {
                tracing::info!(frames = song.frames, format = %song.input.format, "Separated");
                return Ok(files);
            }
            Err(error) => error,
        };
        let message = reworded(&error, input);
        Err(match find_disk_error(&error) {
            Some(error_on_disk) => disk_failure(error_on_disk, message, scratch, limits.needed(frames)).await,
            None => work_error(&error, message),
        })
    }
}

/// The text of an error, without the path of the song, which may exist only in this process.
fn reworded(error: &SongError, input: &StagedInput) -> String {
    let known_as = match &input.shared {
        Some(shared) => shared.resolved().display().to_string(),
        None => "the song".to_owned(),
    };
    chain(error).replace(&input.path.display().to_string(), &known_as)
}
