//! `separation-worker separate`: separates song files one after the other with one loaded model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::failure::{EXIT_INTERRUPTED, Failure};
use super::printing::line_err;
use super::progress::ProgressDisplay;
use super::report::{FileReport, print};
use super::separate_args::SeparateArguments;
use crate::audio::remove_abandoned;
use crate::engine::{CancelToken, Control};
use crate::model::Provenance;
use crate::model_store::ModelStoreError;
use crate::onnx::LoadError;
use crate::settings::ModelReference;
use crate::song::{Separator, SongError, SongSettings, StemOutput};

pub(super) fn run(arguments: &SeparateArguments, started_at: Instant) -> Result<(), Failure> {
    let settings = arguments.settings().map_err(Failure::Usage)?;
    let timeout = arguments.timeout().map_err(Failure::Usage)?;
    let reference = arguments.model.reference()?;
    let output_dir = &arguments.output_dir;
    fs::create_dir_all(output_dir)
        .with_context(|| format!("cannot create --output-dir {}", output_dir.display()))
        .map_err(Failure::Usage)?;
    let songs = arguments.songs(line_err).map_err(Failure::Usage)?;
    let cancel = cancel_on_signal()?;

    let model = arguments.model.obtain(&reference, &cancel)?;
    let loaded = Separator::load(&model, arguments.runtime(), &arguments.model.locations());
    // A process that exits while ONNX Runtime loads a model may crash, so signals take effect only here.
    if cancel.is_canceled() {
        return Err(Failure::Interrupted);
    }
    let mut separator = loaded.map_err(|error| load_failure(error, &reference))?;
    separator
        .check(&settings)
        .map_err(|error| Failure::Usage(error.into()))?;
    let stems = arguments
        .wanted_stems(&separator.stems())
        .map_err(Failure::Usage)?;
    let bound = separator
        .limit_memory(&stems, &settings)
        .map_err(|error| Failure::Usage(error.into()))?;
    if let Some(bound) = bound {
        line_err(&bound.to_string());
    }
    let planned = arguments
        .plan_outputs(&songs, &stems, settings.format)
        .map_err(Failure::Usage)?;
    remove_incomplete(&planned);

    let provenance = separator.provenance().clone();
    if let Some(warning) = model.warning(&provenance.sha256) {
        line_err(&format!("warning: {warning}"));
    }
    let (mut failed, mut unprinted) = (false, None);
    for (song, outputs) in songs.iter().zip(&planned) {
        let job = Job {
            input: &song.path,
            outputs,
            model: &provenance,
            settings: &settings,
            timeout,
            cancel: &cancel,
            started_at,
        };
        let report = if arguments.skip_existing && outputs.iter().all(|output| output.path.is_file()) {
            FileReport::skipped(job.input, outputs)
        } else {
            job.run(&mut separator)
        };
        failed |= report.is_failure();
        // A report that cannot be printed does not stop the other songs.
        unprinted = print(&report, arguments.json).err().or(unprinted);
        if report.is_failure() && cancel.is_canceled() {
            return Err(Failure::Interrupted);
        }
    }
    match unprinted {
        Some(error) => Err(anyhow::Error::from(error)
            .context("cannot write the report")
            .into()),
        None if failed => Err(Failure::Reported),
        None => Ok(()),
    }
}

/// A missing or unsuitable model is a usage error; a failure of the runtime is not.
fn load_failure(error: SongError, reference: &ModelReference) -> Failure {
    match (error, reference) {
        (error @ SongError::Load(LoadError::Library(_) | LoadError::Provider { .. }), _) => {
            Failure::Work(error.into())
        }
        (error, ModelReference::Address { address, .. }) => {
            let fix = "store them there, or name their file with --model-data";
            let missing = ModelStoreError::no_parameters(&address.location, &error, fix);
            Failure::Usage(missing.map_or_else(|| error.into(), Into::into))
        }
        (error, ModelReference::Local(_)) => Failure::Usage(error.into()),
    }
}

/// Removes files that a killed process left in the directories of the stems.
fn remove_incomplete(planned: &[Vec<StemOutput>]) {
    let outputs = planned.iter().flatten();
    let directories: BTreeSet<&Path> = outputs.filter_map(|output| output.path.parent()).collect();
    for directory in directories {
        remove_abandoned(directory);
    }
}

struct Job<'j> {
    input: &'j Path,
    outputs: &'j [StemOutput],
    model: &'j Provenance,
    settings: &'j SongSettings,
    timeout: Option<Duration>,
    cancel: &'j CancelToken,
    started_at: Instant,
}

impl Job<'_> {
    fn run(&self, separator: &mut Separator) -> FileReport {
        let begin = Instant::now();
        let control = Control {
            cancel: self.cancel.clone(),
            deadline: self.timeout.and_then(|timeout| begin.checked_add(timeout)),
        };
        let mut display = ProgressDisplay::start(self.input, begin);
        let mut first_chunk_at = None;
        let mut report = |progress| {
            first_chunk_at.get_or_insert_with(Instant::now);
            display.update(progress, Instant::now());
        };
        let result = self.create_directories().and_then(|()| {
            let separated =
                separator.separate(self.input, self.outputs, self.settings, &mut report, &control);
            separated.map_err(|error| self.explain(error))
        });
        display.finish();
        let wall = begin.elapsed();
        let first_chunk = first_chunk_at.map(|at: Instant| at.duration_since(self.started_at));
        match result {
            Ok(song) => FileReport::success(self.input, &song, self.model, wall, first_chunk),
            Err(error) => FileReport::failure(self.input, &error, wall),
        }
    }

    /// Creates the directories of the stems.
    fn create_directories(&self) -> anyhow::Result<()> {
        for directory in self.outputs.iter().filter_map(|output| output.path.parent()) {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create the directory {}", directory.display()))?;
        }
        Ok(())
    }

    fn explain(&self, error: SongError) -> anyhow::Error {
        let error = anyhow::Error::from(error);
        match self.timeout {
            Some(timeout)
                if error.root_cause().is::<crate::engine::Stopped>() && !self.cancel.is_canceled() =>
            {
                error.context(format!("--timeout of {} s exceeded", timeout.as_secs_f64()))
            }
            _ => error,
        }
    }
}

/// The first signal stops the running song and starts no other, also while the model is loading. The second signal ends
/// the process.
fn cancel_on_signal() -> anyhow::Result<CancelToken> {
    let cancel = CancelToken::new();
    let on_signal = cancel.clone();
    ctrlc::set_handler(move || {
        if on_signal.is_canceled() {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
        on_signal.cancel();
    })
    .context("cannot install a signal handler")?;
    Ok(cancel)
}
