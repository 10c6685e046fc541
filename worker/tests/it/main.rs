//! The worker as its users see it: public functions, real files, real programs.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests stand outside of functions marked as such"
)]

mod formats;
mod hostile_audio;
