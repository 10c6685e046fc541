//! Scenarios on a real cluster: see the library for what they are made of.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(clippy::print_stdout, reason = "what is left out is said")]

mod bad_pools;
mod deletion;
mod faults;
mod readme;
mod releases;
mod rolling;
mod up_and_down;

/// Whether this machine can run no scenario, which is said.
fn is_left_out() -> bool {
    let reason = separation_scenarios::left_out();
    if let Some(reason) = &reason {
        println!("left out: {reason}");
    }
    reason.is_some()
}
