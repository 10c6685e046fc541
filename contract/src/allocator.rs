//! Makes this process's allocator give memory back. Whoever waits for hours between bursts of work does so.
//!
//! glibc raises its thresholds with each large block that is freed, and keeps a hundred megabytes for the next song. They
//! stand still when they are set, which it reads from the environment when a process starts: so the process starts anew,
//! once. Other allocators ignore them.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// From this size on a block goes back when it is freed, and so does the heap's free end. glibc's own at first.
const THRESHOLD_BYTES: &str = "131072";

/// What glibc reads. Whoever sets one of them has chosen, as this process has after it started anew.
const VARIABLES: [&str; 2] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Pools of memory that threads keep to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arenas {
    /// As many as glibc thinks fit: threads that allocate much do not wait for each other.
    AsMany,
    /// One: threads that allocate little share what is free.
    One,
}

/// Starts this process anew with fixed thresholds, unless some are set. Goes on as it is where that cannot be done.
pub fn keep_little(arenas: Arenas) {
    let chosen = VARIABLES
        .into_iter()
        .chain(["GLIBC_TUNABLES"])
        .any(|name| std::env::var_os(name).is_some());
    if chosen || !cfg!(target_env = "gnu") {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Gives an error or nothing at all; it costs memory only, and logging has not begun.
    let _ = command
        .args(arguments)
        .envs(VARIABLES.map(|name| (name, THRESHOLD_BYTES)))
        .envs((arenas == Arenas::One).then_some(("MALLOC_ARENA_MAX", "1")))
        .exec();
}
