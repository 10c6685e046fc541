//! A node as tests see it: real pods, and no trace of them afterwards.
//!
//! It takes root, and some time: apart from the others, so that they can be run without it.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(clippy::print_stdout, reason = "what is left out is said")]

mod api;
mod leftovers;
mod pods;

/// Whether this machine can have no node, which `cargo xtask test` found out and told.
fn is_left_out() -> bool {
    let reason = separation_testbed::no_node();
    if let Some(reason) = &reason {
        println!("left out: {reason}");
    }
    reason.is_some()
}
