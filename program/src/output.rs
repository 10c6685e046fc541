//! Output and exit codes of the commands.

use std::io::{Write as _, stdout};

use anyhow::Context as _;

/// Exit code after an error.
pub(super) const EXIT_FAILED: u8 = 1;

/// Exit code of `check` if nothing could be checked.
pub(super) const EXIT_NOT_CHECKED: u8 = 2;

/// Exit code after a signal: 128 + SIGINT, as in shells.
pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// Prints to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
