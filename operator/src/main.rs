//! `separation-operator`: scales separation workers by Kafka consumer lag.

use std::process::ExitCode;

fn main() -> ExitCode {
    separation_operator::cli::run()
}
