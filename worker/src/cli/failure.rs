//! Failures of commands, and exit codes.

use crate::settings::SettingError;

/// Some of the work failed.
pub(super) const EXIT_FAILED: u8 = 1;

/// The arguments are invalid; nothing was started.
pub(super) const EXIT_USAGE: u8 = 2;

/// A signal ended the work; 128 + SIGINT, as in shells.
pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// Why a command failed.
pub(super) enum Failure {
    /// The arguments are invalid: nothing was started.
    Usage(anyhow::Error),
    /// The work failed.
    Work(anyhow::Error),
    /// Some of the work failed, and the errors are already printed.
    Reported,
    /// A signal ended it.
    Interrupted,
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Self {
        Self::Usage(error.into())
    }
}

/// Errors without another kind are failures of the work.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(error)
    }
}
