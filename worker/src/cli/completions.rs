//! `separation-worker completions`: scripts with which shells complete commands and options.

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::failure::Failure;
use super::printing::write_out;

const EXAMPLES: &str = "\
Examples:
  source <(separation-worker completions bash)                     # in ~/.bashrc
  separation-worker completions zsh > \"${fpath[1]}/_separation-worker\"
  separation-worker completions fish > ~/.config/fish/completions/separation-worker.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArguments {
    /// The shell that reads the script
    shell: Shell,
}

/// Prints the script for the commands and options of `program`.
pub(super) fn run(arguments: &CompletionsArguments, mut program: Command) -> Result<(), Failure> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(arguments.shell, &mut program, name, &mut script);
    let script = String::from_utf8(script).context("the script is not valid UTF-8")?;
    // clap_complete 4.6 writes the name of a program with a hyphen in two ways for bash, clap's issue 6421.
    let script = script.replace("separation__subcmd__worker", "separation__worker");
    write_out(&script).context("cannot write to standard output")?;
    Ok(())
}
