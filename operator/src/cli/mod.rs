//! The command line. Arguments in, exit code out; the only part of the operator that prints.

mod check;
#[cfg(feature = "local")]
mod local;
mod run;
mod simulate;

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use separation_contract::allocator::{Arenas, keep_little};

use crate::crd;
use crate::settings::RunArguments;

/// Something could not be done.
const EXIT_FAILED: u8 = 1;

/// Scales separation workers by Kafka consumer lag.
#[derive(Debug, Parser)]
#[command(name = "separation-operator", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look after the SeparationPools of a cluster, until SIGTERM
    Run(Box<RunArguments>),
    /// Run a pool on this machine, with worker processes, and Kafka and S3 of its own where it names none
    #[cfg(feature = "local")]
    Local(Box<local::LocalArguments>),
    /// Say whether an operator leads in a cluster and may read pools, as `helm test` asks
    Check(check::CheckArguments),
    /// Print the definition of SeparationPool, for `kubectl apply -f -`
    Crd,
    /// Try a policy on a trace of arriving tasks, recorded or made up, with the operator's own decisions
    Simulate(Box<simulate::SimulateArguments>),
}

/// Does what the process's arguments ask for.
pub fn run() -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(command, Command::Run(_)) {
        keep_little(Arenas::One);
    }
    let done: anyhow::Result<Option<u8>> = match command {
        Command::Run(arguments) => run::run(&arguments).map(|()| None),
        #[cfg(feature = "local")]
        Command::Local(arguments) => local::run(&arguments),
        Command::Check(arguments) => check::run(&arguments).map(|()| None),
        Command::Crd => print_crd().map(|()| None),
        Command::Simulate(arguments) => simulate::run(&arguments).map(|()| None),
    };
    match done {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(code)) => ExitCode::from(code),
        Err(error) => {
            // With standard error closed, the exit code still tells.
            let _ = writeln!(stderr().lock(), "error: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn print_crd() -> anyhow::Result<()> {
    let yaml = crd::to_yaml().context("cannot write the definition as YAML")?;
    print(&yaml)
}

/// Prints; a reader that has gone away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
