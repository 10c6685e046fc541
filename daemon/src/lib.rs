//! Parts of long-running programs that worker and operator share: HTTP endpoints with limits, the heartbeat behind the
//! liveness probe, and log lines that user input cannot forge.
//!
//! Imports no other crate of this workspace.

mod heartbeat;
mod log_line;
mod own_host;
mod server;
mod write_timeout;

pub use heartbeat::Heartbeat;
pub use log_line::OneLine;
pub use own_host::names_this_machine;
pub use server::{Limits, serve};
