//! `separation-operator`: the command line of the operator, from arguments to exit code.

mod check;
mod output;
mod run;

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use separation_contract::allocator::{Arenas, limit_retained_memory};
#[cfg(feature = "local")]
use separation_local::{
    processes::{Ended, LocalArguments},
    simulate::SimulateArguments,
};
use separation_operator::crd;
use separation_operator::settings::RunArguments;

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
    Local(Box<LocalArguments>),
    /// Check that an operator leads in a cluster and that pools can be read; used by `helm test`
    Check(check::CheckArguments),
    /// Print the CRD of SeparationPool, for `kubectl apply -f -`
    Crd,
    /// Simulate a scaling policy on a recorded or synthetic trace of tasks, with the operator's own decisions
    #[cfg(feature = "local")]
    Simulate(Box<SimulateArguments>),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(command, Command::Run(_)) {
        limit_retained_memory(Arenas::One);
    }
    let result: anyhow::Result<Option<u8>> = match command {
        Command::Run(arguments) => run::run(&arguments).map(|()| None),
        #[cfg(feature = "local")]
        Command::Local(arguments) => arguments.run().map(exit_code),
        Command::Check(arguments) => check::run(&arguments).map(|()| None),
        Command::Crd => print_crd().map(|()| None),
        #[cfg(feature = "local")]
        Command::Simulate(arguments) => arguments.run().and_then(|report| print(&report)).map(|()| None),
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

/// The exit code of a pool on this machine, if it is not success.
#[cfg(feature = "local")]
fn exit_code(ended: Ended) -> Option<u8> {
    match ended {
        Ended::Done => None,
        Ended::Failed(_) => Some(EXIT_FAILED),
        Ended::Interrupted => Some(output::EXIT_INTERRUPTED),
    }
}

fn print_crd() -> anyhow::Result<()> {
    let yaml = crd::to_yaml().context("cannot write the CRD as YAML")?;
    print(&yaml)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use separation_operator::crd;
    use separation_operator::metrics::Metrics;
    use separation_testbed::{check_generated, custom_resource_reference, reference};

    use super::Arguments;

    #[test]
    fn the_committed_reference_is_up_to_date() {
        let metrics = Metrics::new();
        let metrics = [("Metrics of `run`", metrics.families())];
        check_generated(
            "docs/reference/operator.md",
            &reference(&Arguments::command(), &metrics),
        );
    }

    #[test]
    fn the_committed_reference_of_pools_is_up_to_date() {
        let crd = serde_json::to_value(crd::crd()).unwrap();
        let example = include_str!("../../deploy/samples/pool.yaml");
        check_generated(
            "docs/reference/separationpool.md",
            &custom_resource_reference(&crd, example),
        );
    }
}
