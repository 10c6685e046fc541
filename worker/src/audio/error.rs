//! What can go wrong between a file and its samples.

use std::path::PathBuf;

use crate::error::ErrorClass;

/// A failure to read, decode, encode or write audio.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file could not be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl AudioError {
    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorClass::Permanent
            }
            Self::Read { .. } => ErrorClass::Transient,
        }
    }
}
