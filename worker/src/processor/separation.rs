//! The loaded model, and a song through it on a thread of its own.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::audio::{OutputFormat, WavSamples};
use crate::engine::{Overlap, Progress};
use crate::error::ErrorClass;
use crate::model::{ModelChoice, StemName};
use crate::onnx::RuntimeOptions;
use crate::places::Places;
use crate::song::{Formula, Normalize, Separator, SongError, SongSettings, StemOutput};
use crate::storage::{AttemptScratch, Disk, StagedInput, is_disk_trouble, is_full, os_errors};
use crate::work::{Claim, Dependency, WorkError, chain};

/// Bytes of one frame of both stems: two channels of 16 bits each.
const STEM_BYTES_PER_FRAME: u64 = 2 * 2 * 2;

/// How stems are made: as `separation-worker separate` does by default.
const SETTINGS: SongSettings = SongSettings {
    overlap: Overlap::DEFAULT,
    denoise: false,
    formula: Formula::Uvr,
    normalize: Normalize::None,
    format: OutputFormat::Wav(WavSamples::Int16),
};

/// Why a model cannot serve tasks.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] SongError),
    /// It finds other stems than tasks ask for.
    #[error("the model finds {found}, and tasks ask for vocals and instrumental")]
    Stems {
        /// What it finds.
        found: String,
    },
}

impl ModelError {
    /// The model as a dependency, where another file in its place would do.
    pub fn dependency(&self) -> Option<Dependency> {
        let Self::Load(error) = self else {
            return None;
        };
        let fix = "put the model's files where MODEL_FILE_DIR and MODEL_NAME name them";
        match error {
            SongError::NoModel { .. } => Some(Dependency::new("model", "missing", fix)),
            SongError::ReadModel { .. } => Some(Dependency::new("model", "unreadable", fix)),
            _ => None,
        }
    }
}

/// A loaded model.
#[derive(Clone)]
pub struct Separation {
    separator: Arc<Mutex<Separator>>,
    vocals: StemName,
    instrumental: StemName,
    model: String,
}

/// The files of a song's stems.
#[derive(Debug, Clone)]
pub(super) struct Separated {
    pub(super) vocals: PathBuf,
    pub(super) instrumental: PathBuf,
}

/// What a disk did to a separation.
#[derive(Debug)]
struct DiskTrouble {
    disk: Disk,
    cause: io::Error,
}

/// The operating system's refusal to read the song or to write its stems, where that made a separation fail.
fn disk_trouble(error: &SongError) -> Option<DiskTrouble> {
    let disk = match error {
        SongError::Create(_) | SongError::Encode(_) | SongError::Publish(_) => Disk::Scratch,
        _ => Disk::Shared,
    };
    let number = os_errors(error).find(|number| is_disk_trouble(*number))?;
    Some(DiskTrouble {
        disk,
        cause: io::Error::from_raw_os_error(number),
    })
}

/// A disk is no fault of the song, unless the song's stems alone, of `needed` bytes, fill it.
async fn disk_error(
    trouble: DiskTrouble,
    message: String,
    scratch: &AttemptScratch,
    needed: u64,
) -> WorkError {
    // Only scratch space is written to.
    let full = is_full(&trouble.cause);
    if full && scratch.fills_its_disk(needed).await.unwrap_or(false) {
        return WorkError::new(ErrorClass::Permanent, message);
    }
    let disk = if full { Disk::Scratch } else { trouble.disk };
    WorkError::held(disk.dependency(&trouble.cause), message)
}

impl Separation {
    /// Loads a model. Takes a while; not for an async thread.
    ///
    /// # Errors
    /// When it cannot be used for tasks.
    pub fn load(choice: &ModelChoice, options: RuntimeOptions, places: &Places) -> Result<Self, ModelError> {
        let separator = Separator::load(choice, options, places)?;
        let stems = separator.stems();
        let named = |name: &str| stems.iter().find(|stem| stem.as_str() == name).cloned();
        let (Some(vocals), Some(instrumental)) = (named("vocals"), named("instrumental")) else {
            return Err(ModelError::Stems {
                found: format!("{} and {}", stems[0], stems[1]),
            });
        };
        Ok(Self {
            model: separator.fingerprint().to_owned(),
            separator: Arc::new(Mutex::new(separator)),
            vocals,
            instrumental,
        })
    }

    /// What tells this model from others: stems of two with the same are the same.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Separates `input` into files in `scratch`.
    pub(super) async fn run(
        &self,
        input: &StagedInput,
        scratch: &AttemptScratch,
        claim: &Claim,
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
        // Messages must not name a path that only this process knows.
        let known_as = match &input.shared {
            Some(shared) => shared.resolved().display().to_string(),
            None => "the song".to_owned(),
        };
        let reworded = |error: &(dyn Error + 'static)| {
            chain(error).replace(&input.path.display().to_string(), &known_as)
        };
        // Open until the separation has ended.
        let staged = input.clone();
        let separator = Arc::clone(&self.separator);
        let control = claim.control();
        let cancel = control.cancel.clone();
        let task = tokio::task::spawn_blocking(move || {
            // A song that made the model panic before left no state behind that the next one reads.
            let mut separator = separator.lock().unwrap_or_else(PoisonError::into_inner);
            // The one before may have held the model until this one's time was over.
            control
                .check(Instant::now())
                .map_err(|stopped| SongError::Separate(stopped.into()))?;
            let bytes = |progress: Progress| {
                progress.done_frames.max(progress.expected_frames.unwrap_or(0)) * STEM_BYTES_PER_FRAME
            };
            let mut needed = 0;
            let done = separator.separate(
                &staged.path,
                &outputs,
                &SETTINGS,
                &mut |progress| {
                    needed = needed.max(bytes(progress));
                    if needed > room {
                        cancel.cancel();
                    }
                },
                &control,
            );
            Ok::<_, SongError>((done, needed))
        });
        match task.await {
            Ok(Ok((_, needed))) if needed > room => Err(WorkError::new(
                ErrorClass::Permanent,
                format!(
                    "the stems need more than the {room} bytes of scratch space that are left; fix: raise SCRATCH_LIMIT_BYTES"
                ),
            )),
            Ok(Ok((Ok(song), _))) => {
                tracing::info!(frames = song.frames, format = %song.input.format, "Separated");
                Ok(files)
            }
            Ok(Ok((Err(error), needed))) => Err(match disk_trouble(&error) {
                Some(trouble) => disk_error(trouble, reworded(&error), scratch, needed).await,
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
