//! Tests of the Kafka roles with real brokers, a real object store and real webhook receivers.
//!
//! Need the feature `fault-injection`, with which processes can be killed and held between any two stages.

#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "an error fails the test")]
#![allow(clippy::print_stderr, reason = "long tests print their progress")]

mod access_log;
mod alerts;
mod authentication;
mod brokers;
mod check;
mod crashes;
mod dead_letters;
mod disk;
mod documented_api;
mod drain;
mod drain_seconds;
mod end_to_end;
mod fault_proxy;
mod lag;
mod metrics;
mod models;
mod oldest_first;
mod placement;
mod poison;
mod proxies;
mod rebalance;
mod recovery;
mod refusals;
mod rig;
mod rotations;
mod schema;
mod shutdown;
mod storage_faults;
mod store_refusals;
mod tokens;
mod uvr5_api;
mod v1;
mod v1_api;
mod v1_uploads;
mod web_identity;
mod webhook_commands;
mod webhooks;
