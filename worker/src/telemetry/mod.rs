//! What a role says about itself: logs, and the trace that a task belongs to.

mod logs;
mod trace_context;

pub use logs::{LogFormat, LogsArguments};
pub use trace_context::TraceContext;
