//! Makes this process's allocator return free memory to the system, for processes that are idle for hours.
//!
//! glibc raises its thresholds whenever a large block is freed, and then keeps a hundred megabytes for the next song.
//! The thresholds are fixed if they are set in the environment, which glibc reads when a process starts. So the process
//! restarts itself once with these variables. Other allocators ignore them.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Freed blocks, and a free end of the heap, of at least this size are returned to the system. glibc's initial value.
const THRESHOLD_BYTES: &str = "131072";

/// The variables that glibc reads. Values that a user has set are kept. After the restart, both are set.
const VARIABLES: [&str; 2] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Number of glibc's memory arenas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arenas {
    /// glibc's default: threads that allocate much do not contend.
    Default,
    /// One: threads that allocate little share free memory.
    One,
}

/// Restarts this process with fixed thresholds, unless one is set already. Continues unchanged if that fails.
pub fn limit_retained_memory(arenas: Arenas) {
    let is_configured = VARIABLES
        .into_iter()
        .chain(["GLIBC_TUNABLES"])
        .any(|name| std::env::var_os(name).is_some());
    if is_configured || !cfg!(target_env = "gnu") {
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
    // Returns only on failure, which costs nothing but memory. Logging has not started yet.
    let _ = command
        .args(arguments)
        .envs(VARIABLES.map(|name| (name, THRESHOLD_BYTES)))
        .envs((arenas == Arenas::One).then_some(("MALLOC_ARENA_MAX", "1")))
        .exec();
}
