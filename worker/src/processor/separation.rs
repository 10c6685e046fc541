//! Runs a song through the loaded model, on a blocking thread.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::audio::{OutputFormat, WavSamples};
use crate::engine::{Control, Progress};
use crate::error::ErrorClass;
use crate::locations::Locations;
use crate::model::{ModelChoice, Provenance, StemName};
use crate::onnx::RuntimeOptions;
use crate::song::{
    Formula, Normalize, Separator, SongError, SongReport, SongSettings, StemFormat, StemOutput, StemRate,
};
use crate::storage::{AttemptScratch, Disk, StagedInput, is_disk_error, is_full, os_errors};
use crate::work::{Dependency, WorkContext, WorkError, chain};

/// Bytes of one frame of both stems: two channels of 16 bits each.
const STEM_BYTES_PER_FRAME: u64 = 2 * 2 * 2;

/// Separation settings: the defaults of `separation-worker separate`.
const SETTINGS: SongSettings = SongSettings {
    overlap: None,
    denoise: false,
    formula: Formula::Uvr,
    normalize: Normalize::None,
    format: StemFormat::Fixed(OutputFormat::Wav(WavSamples::Int16)),
    rate: StemRate::Fixed,
};

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

/// Separates a song on this thread. Cancels the separation once its stems need more than `room` bytes. Returns its
/// result and the bytes that the stems need.
fn separate_within(
    separator: &Mutex<Separator>,
    input: &StagedInput,
    outputs: &[StemOutput],
    room: u64,
    control: &Control,
) -> Result<(Result<SongReport, SongError>, u64), SongError> {
    // A panic leaves no state in the separator that the next song reads.
    let mut separator = separator.lock().unwrap_or_else(PoisonError::into_inner);
    // The previous song may have held the model until this one's time limit passed.
    control
        .check(Instant::now())
        .map_err(|stopped| SongError::Separate(stopped.into()))?;
    let bytes = |progress: Progress| {
        progress.done_frames.max(progress.expected_frames.unwrap_or(0)) * STEM_BYTES_PER_FRAME
    };
    let mut needed = 0;
    let done = separator.separate(
        &input.path,
        outputs,
        &SETTINGS,
        &mut |progress| {
            needed = needed.max(bytes(progress));
            if needed > room {
                control.cancel.cancel();
            }
        },
        control,
    );
    Ok((done, needed))
}

impl Separation {
    /// Loads a model. Blocks; do not call on an async thread.
    ///
    /// # Errors
    /// When it cannot be loaded or has other stems than tasks need.
    pub fn load(
        choice: &ModelChoice,
        options: RuntimeOptions,
        locations: &Locations,
    ) -> Result<Self, ModelError> {
        let separator = Separator::load(choice, options, locations)?;
        separator.check(&SETTINGS)?;
        let stems = separator.stems();
        let named = |name: &str| stems.iter().find(|stem| stem.as_str() == name).cloned();
        let (Some(vocals), Some(instrumental)) = (named("vocals"), named("instrumental")) else {
            return Err(ModelError::Stems {
                found: stems.iter().map(StemName::as_str).collect::<Vec<_>>().join(", "),
            });
        };
        Ok(Self {
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

    /// License and origin of the model.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Separates `input` into files in `scratch`.
    pub(super) async fn run(
        &self,
        input: &StagedInput,
        scratch: &AttemptScratch,
        context: &WorkContext,
    ) -> Result<Separated, WorkError> {
        let files = Separated {
            vocals: scratch.path().join("vocals.wav"),
            instrumental: scratch.path().join("instrumental.wav"),
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
        // Messages must not contain a path that exists only in this process.
        let known_as = match &input.shared {
            Some(shared) => shared.resolved().display().to_string(),
            None => "the song".to_owned(),
        };
        let reworded = |error: &(dyn Error + 'static)| {
            chain(error).replace(&input.path.display().to_string(), &known_as)
        };
        // Keeps the input open until the separation has ended.
        let staged = input.clone();
        let separator = Arc::clone(&self.separator);
        let control = context.control();
        let task = tokio::task::spawn_blocking(move || {
            separate_within(&separator, &staged, &outputs, room, &control)
        });
        match task.await {
            Ok(Ok((_, needed))) if needed > room => Err(WorkError::new(
                ErrorClass::Permanent,
                format!(
                    "the stems need more than the remaining {room} bytes of scratch space; fix: raise SCRATCH_LIMIT_BYTES"
                ),
            )),
            Ok(Ok((Ok(song), _))) => {
                tracing::info!(frames = song.frames, format = %song.input.format, "Separated");
                Ok(files)
            }
            Ok(Ok((Err(error), needed))) => Err(match find_disk_error(&error) {
                Some(error_on_disk) => disk_failure(error_on_disk, reworded(&error), scratch, needed).await,
                None => WorkError::new(error.class(), reworded(&error)),
            }),
            Ok(Err(error)) => Err(WorkError::new(error.class(), reworded(&error))),
            Err(panicked) => Err(WorkError::new(
                ErrorClass::Bug,
                format!("the separation panicked: {panicked}"),
            )),
        }
    }
}
