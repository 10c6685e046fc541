//! What a role says about itself: logs, metrics, and the trace that a task belongs to.

mod holds;
mod logs;
mod metrics;
mod trace_context;

pub use holds::Holds;
pub use logs::{LogFormat, LogsArguments};
pub use metrics::{ApiMetrics, Families, Metrics};
pub use trace_context::TraceContext;
