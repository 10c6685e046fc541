//! `separation-worker`: one program, its roles as subcommands.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    separation_worker::cli::run(Instant::now())
}
