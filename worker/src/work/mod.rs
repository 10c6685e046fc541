//! The work on one message: its limits, errors and retries, and the interface of a role.
//!
//! Uses neither Kafka nor audio code. The service loop passes a [`WorkContext`] to a role, which returns [`Finished`].

mod context;
mod dependency;
mod error;
mod hold;
mod retry;
mod role;

pub use context::{OwnershipRequest, WorkContext, WorkSupervisor};
pub use dependency::Dependency;
pub use error::WorkError;
pub(crate) use hold::HoldableStep;
pub use retry::{retry_transient, retry_while_held};
pub use role::{FailureReport, Finished, Role};
pub use separation_daemon::chain;
