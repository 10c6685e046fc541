//! Telemetry of a role: logs, metrics, and the trace of a task.

mod families;
mod holds;
mod logs;
mod metrics;
mod trace_context;

pub use families::Families;
pub use holds::Holds;
pub use logs::{LogFormat, LogsArguments};
pub use metrics::{ApiMetrics, Metrics};
pub use trace_context::TraceContext;
