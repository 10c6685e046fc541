//! Errors of a separation.

use super::control::Stopped;
use crate::audio::AudioError;
use crate::error::ErrorClass;

/// The model failed to run.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    class: ErrorClass,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl NetworkError {
    /// An error with a message and its cause.
    pub fn new(
        class: ErrorClass,
        message: impl Into<String>,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            class,
            message: message.into(),
            source,
        }
    }
}

/// Why a song was not separated.
#[derive(Debug, thiserror::Error)]
pub enum SeparateError {
    /// The song could not be read.
    #[error("cannot read the song")]
    Source(#[source] AudioError),
    /// The song has no audio.
    #[error("the song is empty: it has no audio at all")]
    Empty,
    /// The stems could not be written.
    #[error("cannot write the stems")]
    Deliver(#[source] AudioError),
    /// The model could not run.
    #[error("the model failed")]
    Network(#[from] NetworkError),
    /// The model returned NaN or infinity.
    #[error("the model returned NaN or infinity at second {second:.1} of the song")]
    NotFinite {
        /// Position in the song, in seconds.
        second: f64,
    },
    /// The separation was canceled or its deadline passed.
    #[error("stopped before the end of the song")]
    Stopped(#[from] Stopped),
}

impl SeparateError {
    /// Whether a retry may succeed.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Source(error) | Self::Deliver(error) => error.class(),
            Self::Empty | Self::NotFinite { .. } => ErrorClass::Permanent,
            Self::Network(error) => error.class,
            Self::Stopped(Stopped::DeadlineExceeded) => ErrorClass::TimedOut,
            Self::Stopped(Stopped::Canceled) => ErrorClass::Interrupted,
        }
    }
}
