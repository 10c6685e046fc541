//! uvr5-api's programs, reimplemented in plain Python with its Kafka client.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Components;
use crate::worker::WorkerOptions;

/// A program of uvr5-api, in `testbed/uvr5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uvr5Program {
    /// Consumes tasks with the `range` assignor and "separates" by copying.
    Processor,
    /// Consumes results and prints them as lines of JSON: `{"key", "value"}`.
    Uploader,
    /// Publishes a task for every song path in its arguments; needs `HOOK_URL`.
    Producer,
}

impl Uvr5Program {
    /// Options to start it like a worker; [`Site::uvr5_program`](crate::Site::uvr5_program) adds a test's names.
    ///
    /// # Errors
    /// If its Kafka client is not installed.
    pub fn options(self) -> Result<WorkerOptions> {
        let script = match self {
            Self::Processor => "processor.py",
            Self::Uploader => "uploader.py",
            Self::Producer => "producer.py",
        };
        let options = WorkerOptions::new("python3", &directory().join(script).display().to_string());
        Ok(options
            .env("PYTHONPATH", Components::locate()?.kafka_python())
            .env("PYTHONDONTWRITEBYTECODE", "1"))
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("uvr5")
}
