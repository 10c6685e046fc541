//! What worker and operator share as long-running programs: HTTP endpoints with limits, the heartbeat that liveness
//! reports, and log lines that no text of a user can forge.
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
