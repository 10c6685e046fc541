//! The loaded model, and a song through it on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::audio::{OutputFormat, WavSamples};
use crate::engine::{Overlap, Progress};
use crate::error::ErrorClass;
use crate::model::{ModelChoice, StemName};
use crate::onnx::RuntimeOptions;
use crate::places::Places;
use crate::song::{Formula, Normalize, Separator, SongError, SongSettings, StemOutput};
use crate::storage::AttemptScratch;
use crate::work::{Claim, WorkError, chain};

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
        input: &Path,
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
        let room = scratch.remaining_bytes()?;
        let fetched = input
            .starts_with(scratch.path())
            .then(|| input.display().to_string());
        let (separator, input) = (Arc::clone(&self.separator), input.to_owned());
        let control = claim.control();
        let cancel = control.cancel.clone();
        let task = tokio::task::spawn_blocking(move || {
            // A song that made the model panic before left no state behind that the next one reads.
            let mut separator = separator.lock().unwrap_or_else(PoisonError::into_inner);
            // The one before may have held the model until this one's time was over.
            control
                .check(Instant::now())
                .map_err(|stopped| SongError::Separate(stopped.into()))?;
            let too_large = |progress: Progress| {
                progress.done_frames.max(progress.expected_frames.unwrap_or(0)) * STEM_BYTES_PER_FRAME > room
            };
            let mut outgrown = false;
            let done = separator.separate(
                &input,
                &outputs,
                &SETTINGS,
                &mut |progress| {
                    if too_large(progress) {
                        outgrown = true;
                        cancel.cancel();
                    }
                },
                &control,
            );
            Ok((done, outgrown))
        });
        match task.await {
            Ok(Ok((_, true))) => Err(WorkError::new(
                ErrorClass::Permanent,
                format!(
                    "the stems need more than the {room} bytes of scratch space that are left; fix: raise SCRATCH_LIMIT_BYTES"
                ),
            )),
            Ok(Ok((Ok(song), false))) => {
                tracing::info!(frames = song.frames, format = %song.input.format, "Separated");
                Ok(files)
            }
            Ok(Ok((Err(error), false)) | Err(error)) => Err(match fetched {
                // Its caller knows no file of that name.
                Some(name) => WorkError::new(error.class(), chain(&error).replace(&name, "the song")),
                None => WorkError::new(error.class(), error),
            }),
            Err(panicked) => Err(WorkError::new(
                ErrorClass::Bug,
                format!("the separation panicked: {panicked}"),
            )),
        }
    }
}
