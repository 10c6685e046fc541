//! Building blocks of cluster scenarios: the system as installed by its chart, pools on it, and checks of the
//! results.
//!
//! Uses the images that `cargo xtask test` built; builds nothing. Scenarios run one at a time, because a
//! cluster with its pods takes a complete machine.

mod evictions;
mod faults;
mod healthy_load;
mod local_image;
mod outcome;
mod pool;
mod recording;
mod shell;
mod stages;
mod system;

pub use evictions::{EvictionsResult, Notice, evict_busy_workers};
pub use faults::{FaultsResult, sixty_tasks_under_faults};
pub use healthy_load::{AlertsResult, alerts_under_load};
pub use local_image::{LocalImageTimes, run_local_image};
pub use outcome::{Outcome, max_processors};
pub use pool::{Hold, Pool, PoolOptions, is_processor};
pub use recording::{Recording, record_scale_up};
pub use shell::{free_port, paste};
pub use stages::{STAGES, start_by_stage};
pub use system::System;

use std::path::PathBuf;
use std::time::Duration;

/// Timeout of any single step; generous for loaded machines.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(180);

/// Directory of the image archives.
const IMAGES: &str = "SEPARATION_IMAGES";

/// Why scenarios are skipped on this machine. In CI they are never skipped and fail instead.
pub fn skip_reason() -> Option<String> {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    separation_testbed::no_node().or_else(|| match images() {
        None if !is_ci => Some(format!(
            "{IMAGES} is not set to a directory of images; fix: `cargo xtask test -- --test scenarios` builds them"
        )),
        _ => None,
    })
}

fn images() -> Option<PathBuf> {
    std::env::var_os(IMAGES)
        .filter(|directory| !directory.is_empty())
        .map(PathBuf::from)
}
