//! One message's work: what it may assume, how it fails, how it tries again, and what a role is.
//!
//! Knows no Kafka and no audio; the service loop hands a [`Claim`] in, and a role hands [`Finished`] out.

mod claim;
mod error;
mod hold;
mod retry;
mod role;

pub use claim::{Claim, ClaimRequest, ClaimedWork};
pub use error::{WorkError, chain};
pub use hold::Dependency;
pub(crate) use hold::HoldableStep;
pub use retry::{holding, retrying};
pub use role::{Finished, Refusal, Role};
