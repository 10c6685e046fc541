//! `separation-operator`: the command line of the operator, from arguments to exit code.

mod check;
mod output;
mod run;

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::{Shell, generate};
use separation_contract::allocator::{Arenas, limit_retained_memory};
#[cfg(feature = "local")]
use separation_local::{
    processes::{Ended, LocalArguments},
    simulate::SimulateArguments,
};
use separation_operator::crd;
use separation_operator::settings::RunArguments;

use output::{EXIT_FAILED, EXIT_NOT_CHECKED, print};

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
    /// Check an operator and its pools: leader, rights, CRD, specs, Secrets, Kafka, and from pods storage, model and GPU
    Check(check::CheckArguments),
    /// Print the CRD of SeparationPool, for `kubectl apply -f -`
    Crd,
    /// Print a script with which a shell completes commands: `source <(separation-operator completions bash)`
    Completions {
        /// The shell that reads the script
        shell: Shell,
    },
    /// Simulate a scaling policy on a recorded or synthetic trace of tasks, with the operator's own decisions
    #[cfg(feature = "local")]
    Simulate(Box<SimulateArguments>),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(command, Command::Run(_)) {
        limit_retained_memory(Arenas::One);
    }
    let exit_code_of_errors = match command {
        Command::Check(_) => EXIT_NOT_CHECKED,
        _ => EXIT_FAILED,
    };
    let result: anyhow::Result<Option<u8>> = match command {
        Command::Run(arguments) => run::run(&arguments).map(|()| None),
        #[cfg(feature = "local")]
        Command::Local(arguments) => arguments.run().map(exit_code),
        Command::Check(arguments) => check::run(&arguments),
        Command::Crd => print_crd().map(|()| None),
        Command::Completions { shell } => print_completions(shell).map(|()| None),
        #[cfg(feature = "local")]
        Command::Simulate(arguments) => arguments.run().and_then(|report| print(&report)).map(|()| None),
    };
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(code)) => ExitCode::from(code),
        Err(error) => {
            // If standard error is closed, the exit code still reports the failure.
            let _ = writeln!(stderr().lock(), "error: {error:#}");
            ExitCode::from(exit_code_of_errors)
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

fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut program = Arguments::command();
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut program, name, &mut script);
    let script = String::from_utf8(script).context("the script is not valid UTF-8")?;
    // clap_complete 4.6 writes the name of a program with a hyphen in two ways for bash, clap's issue 6421.
    print(&script.replace("separation__subcmd__operator", "separation__operator"))
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
