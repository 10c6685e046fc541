//! What a role says about itself: logs, metrics, and the trace that a task belongs to.

mod logs;
mod metrics;
mod trace_context;

pub use logs::{LogFormat, LogsArguments};
pub use metrics::Metrics;
pub use trace_context::TraceContext;
