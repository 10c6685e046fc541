//! What the Kafka roles promise, with real brokers, a real object store and real receivers of webhooks.
//!
//! Needs the feature `fault-injection`, with which processes can be ended and held between any two stages.

#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(clippy::print_stderr, reason = "long tests say what they are doing")]

mod brokers;
mod crashes;
mod disk;
mod drain;
mod end_to_end;
mod front;
mod lag;
mod logins;
mod metrics;
mod peers;
mod poison;
mod rebalance;
mod recovery;
mod refusals;
mod rig;
mod shutdown;
mod storage_faults;
mod store_refusals;
mod webhooks;
