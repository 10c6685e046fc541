//! A simulated pool under the real decisions: shows what a policy does with a trace of arriving tasks, and compares
//! policies.
//!
//! Decisions are those of [`separation_operator::decide`], made once per lag check period; there are no scaling
//! rules here except those of KEDA, which a pool is compared with. The cluster is a model: pods take a time to start,
//! tasks take the time in the trace, and partitions move in cooperative rebalances. The same inputs always give the
//! same report.

mod arguments;
mod comparison;
mod explain;
mod generator;
mod group;
mod keda;
mod operate;
mod optimum;
mod outcome;
mod plots;
mod pool;
mod random;
mod report;
mod scenario;
mod svg;
mod timeline;
mod trace;

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod tests;

pub use arguments::SimulateArguments;
pub use comparison::{ComparedPolicy, Comparison, PolicyResult, compare};
pub use generator::{Bursts, GenerativeRequests};
pub use outcome::Waits;
pub use report::{ReplicaChange, Report, Sample, WaitingTimes, WorkerHours, simulate};
pub use scenario::{EstimateSource, Placement, Scenario, ScenarioError};
pub use trace::{Arrival, Trace, TraceError, TraceEvent};
