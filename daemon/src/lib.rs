//! Parts of long-running programs that worker and operator share: HTTP endpoints with limits, the heartbeat behind the
//! liveness probe, metric families, log options, and log lines that user input cannot forge.
//!
//! Of this workspace, imports only the contract.

mod error;
mod heartbeat;
mod log_line;
mod logs;
mod metrics;
mod own_host;
mod server;
mod write_timeout;

pub use error::{SettingError, chain};
pub use heartbeat::Heartbeat;
pub use logs::{LogArguments, LogSettings};
pub use metrics::{Families, Family};
pub use own_host::names_this_machine;
pub use server::{Limits, serve};
