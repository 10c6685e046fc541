//! The command line: from arguments to exit code. Only this module prints.

mod check;
#[cfg(feature = "local")]
mod local;
mod output;
mod run;
mod simulate;

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use separation_contract::allocator::{Arenas, limit_retained_memory};

use crate::crd;
use crate::settings::RunArguments;
use output::{EXIT_FAILED, print};

/// Scales separation workers by Kafka consumer lag.
#[derive(Debug, Parser)]
#[command(name = "separation-operator", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile the SeparationPools of a cluster, until SIGTERM
    Run(Box<RunArguments>),
    /// Run a pool on this machine with worker processes, and an embedded Kafka and S3 if the pool names none
    #[cfg(feature = "local")]
    Local(Box<local::LocalArguments>),
    /// Check that an operator leads in a cluster and that pools can be read; used by `helm test`
    Check(check::CheckArguments),
    /// Print the CRD of SeparationPool, for `kubectl apply -f -`
    Crd,
    /// Simulate a scaling policy on a recorded or synthetic trace of tasks, with the operator's own decisions
    Simulate(Box<simulate::SimulateArguments>),
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(command, Command::Run(_)) {
        limit_retained_memory(Arenas::One);
    }
    let result: anyhow::Result<Option<u8>> = match command {
        Command::Run(arguments) => run::run(&arguments).map(|()| None),
        #[cfg(feature = "local")]
        Command::Local(arguments) => local::run(&arguments),
        Command::Check(arguments) => check::run(&arguments).map(|()| None),
        Command::Crd => print_crd().map(|()| None),
        Command::Simulate(arguments) => simulate::run(&arguments).map(|()| None),
    };
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(code)) => ExitCode::from(code),
        Err(error) => {
            // If standard error is closed, the exit code still reports the failure.
            let _ = writeln!(stderr().lock(), "error: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn print_crd() -> anyhow::Result<()> {
    let yaml = crd::to_yaml().context("cannot write the CRD as YAML")?;
    print(&yaml)
}
