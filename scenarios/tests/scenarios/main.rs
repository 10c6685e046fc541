//! Scenarios on a real cluster; their building blocks are in the library.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]
#![allow(clippy::print_stdout, reason = "skipped tests are reported")]

mod bad_pools;
mod deletion;
mod evictions;
mod faults;
mod guides;
mod readme;
mod releases;
mod rolling;
mod trials;
mod up_and_down;
mod workload_identity;

/// Whether this machine cannot run scenarios; prints the reason.
fn is_skipped() -> bool {
    let reason = separation_scenarios::skip_reason();
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}
