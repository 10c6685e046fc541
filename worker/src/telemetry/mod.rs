//! Telemetry of a role: metrics, and the trace of a task.

mod holds;
mod metrics;
mod trace_context;

pub use holds::Holds;
pub use metrics::{ApiMetrics, Metrics};
pub use separation_daemon::Families;
pub use trace_context::TraceContext;
