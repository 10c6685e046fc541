//! The responses to errors of other modules.

use axum::extract::rejection::PathRejection;

use super::super::intake::IntakeError;
use super::super::upload::FormError;
use super::audio_check::UnacceptableSong;
use super::problem::Problem;
use crate::error::ErrorClass;
use crate::storage::StorageError;
use crate::work::WorkError;

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        tracing::error!(error = %crate::work::chain(&error), "Cannot read or write the store of tasks");
        of_class(error.class(), "the store of tasks is unavailable")
    }
}

impl From<WorkError> for Problem {
    fn from(error: WorkError) -> Self {
        tracing::error!(%error, "Cannot read or write staged songs");
        of_class(error.class(), "the staging of songs is unavailable")
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        // A part of the path is not UTF-8.
        Self::not_found()
    }
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        match error {
            FormError::ContentType => {
                Self::unsupported_content_type("must be application/json or multipart/form-data")
            }
            FormError::TooSlow => Self::request_timeout(),
            FormError::TooLarge(_) => Self::input_too_large(error.to_string()),
            FormError::Invalid(_) => Self::invalid_request(error.to_string()),
        }
    }
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Busy | IntakeError::QueueUnreachable => Self::unavailable(error.to_string()),
            IntakeError::Empty => Self::input_not_audio(error.to_string()),
            IntakeError::Storage(error) => error.into(),
            IntakeError::Bug => Self::internal(),
        }
    }
}

impl From<UnacceptableSong> for Problem {
    fn from(error: UnacceptableSong) -> Self {
        match error {
            UnacceptableSong::NotAudio(_) => Self::input_not_audio(error.to_string()),
            UnacceptableSong::TooLong { .. } => Self::input_too_large(error.to_string()),
        }
    }
}

/// 503 if a retry may succeed, else 500.
fn of_class(class: ErrorClass, unavailable: &'static str) -> Problem {
    match class {
        ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::TimedOut | ErrorClass::Interrupted => {
            Problem::unavailable(unavailable)
        }
        ErrorClass::Permanent | ErrorClass::Bug => Problem::internal(),
    }
}
