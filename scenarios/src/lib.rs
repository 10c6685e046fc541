//! What scenarios on a cluster are made of: the system as its chart installs it, pools on it, and what is to be true of
//! their work in the end.
//!
//! The images are those that `cargo xtask test` built; nothing is built here. One scenario runs at a time: a cluster with
//! its pods fills a machine.

mod faults;
mod outcome;
mod pool;
mod system;

pub use faults::{Survival, sixty_tasks_under_faults};
pub use outcome::{Outcome, most_processors};
pub use pool::{Hold, Pool, PoolOptions, is_processor};
pub use system::System;

use std::path::PathBuf;
use std::time::Duration;

/// What any step is waited for; a loaded machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The folder of the images' archives.
const IMAGES: &str = "SEPARATION_IMAGES";

/// Why scenarios are left out on this machine. In CI there is no such reason: they fail instead.
pub fn left_out() -> Option<String> {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    separation_testbed::no_node().or_else(|| match images() {
        None if !is_ci => Some(format!(
            "{IMAGES} names no images; fix: `cargo xtask test -- --test scenarios` builds them"
        )),
        _ => None,
    })
}

fn images() -> Option<PathBuf> {
    std::env::var_os(IMAGES)
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
}
