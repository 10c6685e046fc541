//! The operator's own settings: typed, checked together at start. The environment is read here and nowhere else.

mod lease;
mod logs;
mod run;
mod workers;

pub use lease::{LeaseArguments, LeaseSettings, LeaseTimings};
pub use logs::{LogArguments, LogFormat, LogSettings};
pub use run::{Namespaces, RunArguments, RunSettings};
pub use workers::{Allowance, WorkerArguments, WorkerSettings};

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}; fix: {fix}")]
pub struct SettingError {
    /// The option.
    pub option: &'static str,
    /// What is wrong with its value.
    pub problem: String,
    /// What to do.
    pub fix: String,
}
