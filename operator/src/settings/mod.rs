//! The operator's own settings: typed, validated together at start. The environment is read here and nowhere else.

mod lease;
mod logs;
mod run;
mod workers;

pub use lease::{LeaseArguments, LeaseSettings, LeaseTimings};
pub use logs::{LogArguments, LogFormat, LogSettings};
pub use run::{Namespaces, Refresh, RunArguments, RunSettings};
pub use workers::{Allowance, WorkerArguments, WorkerSettings};

/// An invalid setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}; fix: {fix}")]
pub struct SettingError {
    /// Name of the option, such as `--lease-name`.
    pub option: &'static str,
    /// Why its value is invalid.
    pub problem: String,
    /// How to correct it.
    pub fix: String,
}
