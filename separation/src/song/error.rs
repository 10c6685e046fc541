//! Why a song has no stems.

use std::path::PathBuf;

use crate::audio::AudioError;
use crate::engine::{OverlapError, SeparateError};
use crate::error::ErrorClass;
use crate::model::ParametersError;
use crate::onnx::LoadError;

/// Why a song has no stems.
#[derive(Debug, thiserror::Error)]
pub enum SongError {
    /// There is no such model.
    #[error("there is no model file {path}")]
    NoModel {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The model's file cannot be read.
    #[error("cannot read the model {path}")]
    ReadModel {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The model's parameters are not known.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// The model cannot be run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model's chunks cannot overlap as asked.
    #[error(transparent)]
    Overlap(#[from] OverlapError),
    /// The song cannot be read.
    #[error(transparent)]
    Open(AudioError),
    /// A stem's file cannot be made.
    #[error(transparent)]
    Create(AudioError),
    /// The separation failed on the way.
    #[error(transparent)]
    Separate(#[from] SeparateError),
    /// A stem's file could not be completed.
    #[error(transparent)]
    Encode(AudioError),
    /// A stem's file could not be given its name.
    #[error(transparent)]
    Publish(AudioError),
}

impl SongError {
    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoModel { .. } | Self::Parameters(_) | Self::Overlap(_) => ErrorClass::Permanent,
            Self::ReadModel { .. } => ErrorClass::Transient,
            Self::Load(error) => error.class(),
            Self::Separate(error) => error.class(),
            Self::Open(error) | Self::Create(error) | Self::Encode(error) | Self::Publish(error) => {
                error.class()
            }
        }
    }
}
