//! What the Kafka roles promise, with real brokers, a real object store and real receivers of webhooks.
//!
//! Needs the feature `fault-injection`, with which processes can be ended and held between any two stages.

#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(clippy::print_stderr, reason = "long tests say what they are doing")]

mod crashes;
mod lag;
mod rig;
mod shutdown;
