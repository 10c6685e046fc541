//! The operator's own settings: typed, validated together at start. The environment is read here and nowhere else.

mod identity;
mod lease;
mod run;
mod workers;

pub use identity::{AllowedBroker, IdentityArguments, IdentitySettings, ServiceAccountName};
pub use lease::{LeaseArguments, LeaseName, LeaseSettings, LeaseTimings};
pub use run::{Namespaces, Refresh, RunArguments, RunSettings};
pub use workers::{Allowance, WorkerArguments, WorkerSettings};

pub use separation_daemon::SettingError;
