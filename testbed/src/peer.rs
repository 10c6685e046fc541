//! The existing system's side, played by plain Python programs with the client that it uses.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Parts;
use crate::worker::WorkerOptions;

/// A program of the existing system, in `testbed/peers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Takes tasks under `range` and "separates" by copying.
    Processor,
    /// Reads results and prints them as lines of JSON: `{"key", "value"}`.
    Uploader,
    /// Publishes a task for every path of a song among its arguments; needs `HOOK_URL`.
    Producer,
}

impl Peer {
    /// It, to be started as a worker is; see [`Site::peer`](crate::Site::peer) for one that knows a test's names.
    ///
    /// # Errors
    /// When its Kafka client is not installed.
    pub fn options(self) -> Result<WorkerOptions> {
        let script = match self {
            Self::Processor => "processor.py",
            Self::Uploader => "uploader.py",
            Self::Producer => "producer.py",
        };
        let options = WorkerOptions::new("python3", &folder().join(script).display().to_string());
        Ok(options
            .env("PYTHONPATH", Parts::locate()?.kafka_python())
            .env("PYTHONDONTWRITEBYTECODE", "1"))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}
