//! Errors of separating one song.

use std::path::PathBuf;

use crate::audio::AudioError;
use crate::engine::{NetworkError, OverlapError, SeparateError};
use crate::error::ErrorClass;
use crate::model::{ContractError, ParametersError};
use crate::onnx::LoadError;

/// Why a song was not separated.
#[derive(Debug, thiserror::Error)]
pub enum SongError {
    /// No model of this name is installed.
    #[error("model {name} is not installed (looked for {searched}); fix: {fix}")]
    NotInstalled {
        /// Its name.
        name: String,
        /// The paths that were searched, in order.
        searched: String,
        /// How to install it.
        fix: String,
    },
    /// The model file does not exist.
    #[error("there is no model file {path}")]
    NoModel {
        /// The path that was searched.
        path: PathBuf,
    },
    /// The model's file cannot be read.
    #[error("cannot read the model {path}")]
    ReadModel {
        /// The model file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The model's parameters were not found or are invalid.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// The model's file alone does not show its tensor contract, and it has no sidecar.
    #[error(transparent)]
    Undeclared(ContractError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Separating a song needs more memory than allowed.
    #[error(
        "separating a song needs up to {} MB of memory with the shortest chunks that the model takes, more than the allowed \
         {} MB; fix: allow more, select fewer stems, or use a smaller model",
        needed_bytes.div_ceil(1_000_000),
        allowed_bytes / 1_000_000
    )]
    Memory {
        /// The least that is needed.
        needed_bytes: u64,
        /// The limit.
        allowed_bytes: u64,
    },
    /// The model needs more memory of the GPU than allowed, or than is free.
    #[error(
        "the model cannot run one chunk in the allowed {} MB of GPU memory; fix: allow more, or use a smaller model",
        allowed_bytes / 1_000_000
    )]
    GpuMemory {
        /// The limit.
        allowed_bytes: u64,
        /// The error of the model.
        source: NetworkError,
    },
    /// The formula is not defined for the model.
    #[error(
        "the formula of audio-separator is defined for MDX-Net models only; fix: use the default formula"
    )]
    Formula,
    /// The overlap does not suit the model's chunks.
    #[error(transparent)]
    Overlap(#[from] OverlapError),
    /// The song cannot be opened.
    #[error(transparent)]
    Open(AudioError),
    /// A stem's file cannot be created.
    #[error(transparent)]
    Create(AudioError),
    /// The separation failed.
    #[error(transparent)]
    Separate(#[from] SeparateError),
    /// A stem's file could not be completed.
    #[error(transparent)]
    Encode(AudioError),
    /// A stem's file could not be renamed to its final name.
    #[error(transparent)]
    Publish(AudioError),
}

impl SongError {
    /// Whether a retry may succeed.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotInstalled { .. }
            | Self::NoModel { .. }
            | Self::Parameters(_)
            | Self::Undeclared(_)
            | Self::Memory { .. }
            | Self::GpuMemory { .. }
            | Self::Formula
            | Self::Overlap(_) => ErrorClass::Permanent,
            Self::ReadModel { .. } => ErrorClass::Transient,
            Self::Load(error) => error.class(),
            Self::Separate(error) => error.class(),
            Self::Open(error) | Self::Create(error) | Self::Encode(error) | Self::Publish(error) => {
                error.class()
            }
        }
    }
}
