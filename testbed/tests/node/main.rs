//! A node, as used by tests: real pods, and no trace of them afterwards.
//!
//! Needs root and some time; a separate binary, so that the other tests can run without it.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(clippy::print_stdout, reason = "skipped tests are reported")]

mod api;
mod leftovers;
mod pods;

/// Whether this machine cannot run a node, as found by `cargo xtask test`; prints the reason.
fn is_skipped() -> bool {
    let reason = separation_testbed::no_node();
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}
