//! `separation-operator local`: a pool on this machine.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::sync::watch;

use super::EXIT_FAILED;
use crate::local::{Asked, Ended, LocalOptions, run as run_local};

/// The program that workers are, beside this one.
const WORKER: &str = "separation-worker";

/// Ended by a signal, as shells say it.
const EXIT_INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  separation-operator local -f pool.yaml --input song.mp3
      separates a song into ./stems and ends
  separation-operator local -f pool.yaml
      takes songs at http://127.0.0.1:8000 until Ctrl-C
  separation-operator local -f pool.yaml -f secrets.yaml --data /var/tmp/pool
      with logins from another file, keeping stems and logs

A pool without spec.kafka and spec.storage gets both from this process, for trying out; one that names them uses them,
and Secrets that it names are read from the same files. Ctrl-C finishes what runs; twice ends at once.";

/// Arguments of `local`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LocalArguments {
    /// File with a SeparationPool, and with Secrets that it names; may be given again
    #[arg(long = "file", short = 'f', value_name = "POOL.yaml", required = true)]
    files: Vec<PathBuf>,
    /// Songs to separate; the command ends when all are done
    #[arg(long, value_name = "SONG", num_args = 1..)]
    input: Vec<PathBuf>,
    /// Where their stems go
    #[arg(long, value_name = "DIR", default_value = "stems")]
    output: PathBuf,
    /// Port of the API on this machine; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value = "8000")]
    port: u16,
    /// The worker's program [default: separation-worker beside this program, or on the PATH]
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// Where logs, waiting songs and the embedded S3's objects are kept [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Partitions of each topic of the embedded Kafka: at most so many workers find something to do
    #[arg(long, value_name = "COUNT", default_value = "12", value_parser = clap::value_parser!(i32).range(1..=100))]
    partitions: i32,
    /// Print a JSON object for each song
    #[arg(long)]
    json: bool,
}

/// Runs the command; gives the exit code where it is not success.
pub(super) fn run(arguments: &LocalArguments) -> anyhow::Result<Option<u8>> {
    let options = arguments.options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    let ended = runtime.block_on(async {
        let asked = signals().context("cannot catch signals")?;
        run_local(options, asked).await
    })?;
    Ok(match ended {
        Ended::Done => None,
        Ended::Failed(_) => Some(EXIT_FAILED),
        Ended::Interrupted => Some(EXIT_INTERRUPTED),
    })
}

impl LocalArguments {
    fn options(&self) -> anyhow::Result<LocalOptions> {
        let worker = match &self.worker {
            Some(worker) if worker.is_file() => {
                std::path::absolute(worker).context("no current directory")?
            }
            Some(worker) => bail!("--worker: no such file: {}", worker.display()),
            None => beside_us().unwrap_or_else(|| WORKER.into()),
        };
        let data = self.data.as_ref().map(std::path::absolute).transpose();
        Ok(LocalOptions {
            files: self.files.clone(),
            inputs: self.input.clone(),
            output: self.output.clone(),
            port: self.port,
            worker,
            data: data.context("no current directory")?,
            partitions: self.partitions,
            json: self.json,
        })
    }
}

fn beside_us() -> Option<PathBuf> {
    let worker = std::env::current_exe().ok()?.with_file_name(WORKER);
    worker.is_file().then_some(worker)
}

/// What is asked for by SIGINT and SIGTERM: the first to end, the next to end at once.
fn signals() -> std::io::Result<watch::Receiver<Asked>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ask, asked) = watch::channel(Asked::Nothing);
    tokio::spawn(async move {
        for what in [Asked::End, Asked::Abort] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            ask.send_replace(what);
        }
        // Whoever reads must not take our end for an answer.
        ask.closed().await;
    });
    Ok(asked)
}
