//! The programs, mixes and files that all scenarios share.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::binaries::{Binaries, Mix, Profile};
use crate::project::Project;
use crate::{models, songs};

/// Directory of all benchmark files, under cargo's target directory. It is emptied before a run, so that no
/// result comes from a song or model of an earlier checkout.
const DIRECTORY: &str = "bench";

/// The measured models: the one in the program, and the default.
pub(super) const MODELS: [&str; 2] = ["builtin", models::NAME];

/// Resources of every scenario; programs and mixes are made by the first scenario that uses them.
pub(super) struct Bench<'p> {
    pub(super) project: &'p Project,
    binaries: OnceCell<Binaries<'p>>,
    mixes: OnceCell<Vec<Mix>>,
    /// Number of cores, for the worker's `--threads`.
    pub(super) threads: String,
    /// A recorded trace of arriving tasks.
    pub(super) trace: Option<PathBuf>,
    /// Length of the load without faults, in minutes.
    pub(super) minutes: u64,
    /// Directory of the document's images; none if no document is written.
    pub(super) images: Option<PathBuf>,
}

impl<'p> Bench<'p> {
    pub(super) fn prepare(project: &'p Project) -> Result<Self> {
        let directory = project.target(DIRECTORY);
        remove_dir(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let cores = std::thread::available_parallelism().context("cannot count the cores")?;
        Ok(Self {
            project,
            binaries: OnceCell::new(),
            mixes: OnceCell::new(),
            threads: cores.to_string(),
            trace: None,
            minutes: 60,
            images: None,
        })
    }

    /// The programs as shipped.
    pub(super) fn binaries(&self) -> Result<&Binaries<'p>> {
        if let Some(built) = self.binaries.get() {
            return Ok(built);
        }
        let built = Binaries::build(self.project, Profile::Dist)?;
        Ok(self.binaries.get_or_init(|| built))
    }

    /// Mixes of real songs with exact references; the first one is repeated to make the long songs.
    pub(super) fn mixes(&self) -> Result<&[Mix]> {
        if let Some(made) = self.mixes.get() {
            return Ok(made);
        }
        let songs = songs::install(self.project)?;
        println!("making the mixes");
        let made = self
            .binaries()?
            .mix(&songs, &self.project.target(DIRECTORY), None)?;
        Ok(self.mixes.get_or_init(|| made))
    }

    /// A song of exactly this many seconds, made once per run.
    pub(super) fn song(&self, seconds: u32) -> Result<PathBuf> {
        let song = self.file(&format!("song_{seconds}s.wav"));
        if !song.exists() {
            let first = self
                .mixes()?
                .first()
                .context("separation-evaluation made no mix")?;
            self.binaries()?.loop_to(&first.mix, seconds, &song)?;
        }
        Ok(song)
    }

    /// Output directory for stems that are not used.
    pub(super) fn stems(&self) -> PathBuf {
        self.file("stems")
    }

    /// Path of a file or directory of this run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.project.target(DIRECTORY).join(name)
    }
}

/// Removes a directory if it exists.
fn remove_dir(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(refused) if refused.kind() != ErrorKind::NotFound => Err(refused),
        _ => Ok(()),
    }
}
