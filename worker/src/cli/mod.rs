//! The command line: parses arguments and returns an exit code. The only module of the worker that prints.

mod api;
mod bench_model;
mod check;
mod completions;
mod dead_letter;
mod dead_letters;
mod download_display;
mod drain;
mod failure;
mod http;
mod keys;
mod lag;
mod model_source;
mod models;
mod name_template;
mod output_plan;
mod parent;
mod printing;
mod processor;
mod processor_model;
mod progress;
mod report;
mod separate;
mod separate_args;
mod serve;
mod song_files;
mod stem_files;
mod submit;
mod submit_args;
mod submit_client;
mod submit_progress;
mod submit_song;
mod uploader;
mod webhooks;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory as _, Parser, Subcommand};
use separation_contract::allocator::{Arenas, limit_retained_memory};

use failure::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Failure};

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
    /// Consume tasks from Kafka, separate their songs, publish results
    Processor(Box<processor::ProcessorArguments>),
    /// Consume results from Kafka, upload their stems, call webhooks
    Uploader(Box<uploader::UploaderArguments>),
    /// Serve the HTTP API, which receives songs and queues them
    Api(Box<api::ApiCommand>),
    /// Post songs, follow their tasks, download their stems
    Submit(Box<submit_args::SubmitArguments>),
    /// Drain the worker on this machine or in this pod, and wait until it runs no task
    Drain(drain::DrainArguments),
    /// Show the lag of a consumer group and the owner of each partition
    Lag(Box<lag::LagArguments>),
    /// List, show and republish messages that workers gave up
    DeadLetters(Box<dead_letters::DeadLettersArguments>),
    /// List the webhooks of the HTTP API v1, and deliver them again
    Webhooks(Box<webhooks::WebhooksArguments>),
    /// Create API keys for clients of the HTTP API
    Keys(keys::KeysArguments),
    /// List, describe, fetch and check models
    Models(Box<models::ModelsArguments>),
    /// Check that a worker could process messages: Kafka, storage, the model and the GPU
    Check(Box<check::CheckArguments>),
    /// Print a script with which a shell completes commands and options
    Completions(completions::CompletionsArguments),
    /// Run a model alone, to measure it
    #[command(hide = true)]
    BenchModel(bench_model::BenchModelArguments),
}

/// Runs the subcommand of the process's arguments. `started_at` is when the process started.
pub fn run(started_at: Instant) -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(
        command,
        Command::Processor(_) | Command::Uploader(_) | Command::Api(_)
    ) {
        limit_retained_memory(Arenas::Default);
    }
    let done = match command {
        Command::Separate(arguments) => separate::run(&arguments, started_at),
        Command::Processor(arguments) => processor::run(&arguments),
        Command::Uploader(arguments) => uploader::run(&arguments),
        Command::Api(arguments) => api::run(&arguments),
        Command::Submit(arguments) => submit::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::Lag(arguments) => lag::run(&arguments),
        Command::DeadLetters(arguments) => dead_letters::run(&arguments),
        Command::Webhooks(arguments) => webhooks::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
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

/// Prints an error with its chain; nothing else prints one.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    printing::line_err(&format!("error: {error:#}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use separation_testbed::{check_generated, reference};

    use super::Arguments;
    use crate::telemetry::{ApiMetrics, Metrics};

    #[test]
    fn the_committed_reference_is_up_to_date() {
        let (consumers, api) = (Metrics::new().families(), ApiMetrics::new().families());
        let metrics = [
            ("Metrics of `processor` and `uploader`", consumers.all()),
            ("Metrics of `api`", api.all()),
        ];
        check_generated(
            "docs/reference/worker.md",
            &reference(&Arguments::command(), &metrics),
        );
    }
}
