//! `separation-operator`: scales separation workers by Kafka consumer lag.
//!
//! Nothing is built here yet. The rooms it will have, joined only in `reconcile`:
//! `crd -> observe (lag, group members, workload) -> decide (pure) -> apply -> status`.

use std::process::ExitCode;

#[expect(
    clippy::print_stderr,
    reason = "the only thing this program can do so far is say so"
)]
fn main() -> ExitCode {
    eprintln!("separation-operator: not built yet; `separation-worker separate` is what works today");
    ExitCode::from(2)
}
