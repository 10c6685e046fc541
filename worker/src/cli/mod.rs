//! The command line. Arguments in, exit code out; the only part of the worker that prints.

mod api;
mod bench_model;
mod drain;
mod lag;
mod parent;
mod printing;
mod processor;
mod progress;
mod report;
mod separate;
mod separate_args;
mod serve;
mod stem_files;
mod submit;
mod submit_args;
mod submit_client;
mod submit_progress;
mod uploader;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use separation_contract::allocator::{Arenas, keep_little};

/// Some of the work failed.
const EXIT_FAILED: u8 = 1;

/// The command line asks for something that cannot be done.
const EXIT_USAGE: u8 = 2;

/// A signal ended the work, as shells count Ctrl-C: 128 + SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Splits songs into vocals and instrumental.
#[derive(Debug, Parser)]
#[command(name = "separation-worker", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Separate song files on this machine, without Kafka
    Separate(Box<separate_args::SeparateArguments>),
    /// Take tasks from Kafka, separate their songs, publish results
    Processor(Box<processor::ProcessorArguments>),
    /// Take results from Kafka, upload their stems, tell callers
    Uploader(Box<uploader::UploaderArguments>),
    /// Take songs over HTTP and queue them
    Api(Box<api::ApiCommand>),
    /// Post songs, follow them, fetch their stems
    Submit(Box<submit_args::SubmitArguments>),
    /// Ask the worker on this machine or in this pod to end, and wait until nothing runs there
    Drain(drain::DrainArguments),
    /// Show how many messages wait, and which worker reads what
    Lag(Box<lag::LagArguments>),
    /// Run a model alone, for measuring it
    #[command(hide = true)]
    BenchModel(bench_model::BenchModelArguments),
}

/// Why a command ended without doing all it was asked.
enum Failure {
    /// What was asked cannot be done: nothing was started.
    Usage(anyhow::Error),
    /// It was started, or could have been.
    Work(anyhow::Error),
    /// It was started, and what failed has been said already.
    Reported,
    /// A signal ended it.
    Interrupted,
}

/// Does what the process's arguments ask for. `started_at` is when the process started.
pub fn run(started_at: Instant) -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(
        command,
        Command::Processor(_) | Command::Uploader(_) | Command::Api(_)
    ) {
        keep_little(Arenas::AsMany);
    }
    let done = match command {
        Command::Separate(arguments) => separate::run(&arguments, started_at),
        Command::Processor(arguments) => processor::run(&arguments),
        Command::Uploader(arguments) => uploader::run(&arguments),
        Command::Api(arguments) => api::run(&arguments),
        Command::Submit(arguments) => submit::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::Lag(arguments) => lag::run(&arguments),
        Command::BenchModel(arguments) => bench_model::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => fail(&error, EXIT_USAGE),
        Err(Failure::Work(error)) => fail(&error, EXIT_FAILED),
        Err(Failure::Reported) => ExitCode::from(EXIT_FAILED),
        Err(Failure::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
    }
}

/// A client for calls on this machine and to addresses that a person gives; not for links from elsewhere.
fn http_client(answer_limit: Duration) -> Result<reqwest::Client, Failure> {
    // Somebody may have chosen one before; then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(answer_limit)
        .no_proxy()
        .build()
        .context("cannot make an HTTP client")
        .map_err(Failure::Work)
}

/// The one place where an error's chain is printed.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    printing::line_err(&format!("error: {error:#}"));
    ExitCode::from(code)
}
