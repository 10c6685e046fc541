//! Arguments of `separation-operator local`, and the signals that end it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::Url;
use tokio::sync::watch;

use super::access::AccessArguments;
use super::{Ended, LocalOptions, StopRequest, health, http_client, run};
use crate::lag_check::parse_period;

/// Name of the worker's program.
const WORKER: &str = "separation-worker";

const EXAMPLES: &str = "\
Examples:
  separation-operator local -f pool.yaml --input song.mp3
      separates a song into ./stems and exits
  separation-operator local -f pool.yaml
      accepts songs at http://127.0.0.1:8000 until Ctrl-C
  separation-operator local -f pool.yaml -f secrets.yaml --data /var/tmp/pool
      with credentials from another file; keeps stems and logs
  separation-operator local -f pool.yaml --host 0.0.0.0 --store-url http://localhost:9000
      accepts songs of other machines, which authenticate; links to stems begin with that URL

A pool without spec.kafka and spec.storage uses an embedded Kafka and S3, for trial use. With them it uses those
servers, and reads the Secrets that it references from the same files. The API listens on loopback and requires neither
API keys nor a password, also if the pool has them. With --host 0.0.0.0 it listens on all addresses of this machine, and
its clients authenticate. Ctrl-C finishes running tasks; a second one exits immediately.";

/// Arguments of `local`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LocalArguments {
    /// File with a SeparationPool and the Secrets that it references; repeatable
    #[arg(
        long = "file",
        short = 'f',
        value_name = "POOL.yaml",
        required_unless_present = "healthcheck"
    )]
    files: Vec<PathBuf>,
    /// Songs to separate; the command exits when all are done
    #[arg(long, value_name = "SONG", num_args = 1..)]
    input: Vec<PathBuf>,
    /// Directory for their stems
    #[arg(long, value_name = "DIR", default_value = "stems")]
    output: PathBuf,
    #[command(flatten)]
    access: AccessArguments,
    /// URL at which clients reach the embedded S3: it listens on this port of --host, and links to stems in responses of
    /// `/tasks` and in webhooks begin with this URL
    #[arg(long, value_name = "URL")]
    store_url: Option<Url>,
    /// The worker's program [default: separation-worker in this program's directory, or on the PATH]
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// Directory for logs, staged songs and the objects of the embedded S3 [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Partitions of each topic of the embedded Kafka; more workers than partitions stay idle
    #[arg(long, value_name = "COUNT", default_value = "12", value_parser = clap::value_parser!(i32).range(1..=100))]
    partitions: i32,
    /// Time between two readings of lag, instead of the pool's lagCheckPeriodSeconds; 0.1 to 300
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = parse_period)]
    lag_check_seconds: Duration,
    /// Print a JSON object for each song
    #[arg(long)]
    json: bool,
    /// Start nothing; fail unless the API of a running pool responds at --host and --port
    #[arg(long)]
    healthcheck: bool,
}

impl LocalArguments {
    /// Runs the pool until its songs are separated or a signal arrives.
    ///
    /// # Errors
    /// When a file, a program or a server cannot be read, started or reached; the text has the fix.
    pub fn run(&self) -> anyhow::Result<Ended> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start")?;
        if self.healthcheck {
            let address = self.access.access().local_address();
            let checked = runtime.block_on(async { health::check(&http_client()?, address).await });
            return checked.map(|()| Ended::Done);
        }
        let options = self.options()?;
        runtime.block_on(async {
            let requests = signals().context("cannot catch signals")?;
            run(options, requests).await
        })
    }

    fn options(&self) -> anyhow::Result<LocalOptions> {
        let worker = match &self.worker {
            Some(worker) if worker.is_file() => {
                std::path::absolute(worker).context("no current directory")?
            }
            Some(worker) => bail!("--worker: no such file: {}", worker.display()),
            None => next_to_this_program().unwrap_or_else(|| WORKER.into()),
        };
        let data = self.data.as_ref().map(std::path::absolute).transpose();
        Ok(LocalOptions {
            files: self.files.clone(),
            inputs: self.input.clone(),
            output: self.output.clone(),
            access: self.access.access(),
            store_url: self.store_url.clone(),
            worker,
            data: data.context("no current directory")?,
            partitions: self.partitions,
            lag_check_period: self.lag_check_seconds,
            json: self.json,
        })
    }
}

fn next_to_this_program() -> Option<PathBuf> {
    let worker = std::env::current_exe().ok()?.with_file_name(WORKER);
    worker.is_file().then_some(worker)
}

/// Requests by SIGINT or SIGTERM: the first one to end, the second one to abort.
fn signals() -> std::io::Result<watch::Receiver<StopRequest>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, requests) = watch::channel(StopRequest::NotRequested);
    tokio::spawn(async move {
        for request in [StopRequest::Drain, StopRequest::Abort] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(request);
        }
        // If this task ended, receivers would see a closed channel and could take it for a request.
        sender.closed().await;
    });
    Ok(requests)
}
